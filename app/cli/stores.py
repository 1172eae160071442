"""The stores a process works on: started where no address is given, reached otherwise, and migrated."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
from pydantic import SecretStr
from rich.console import Console

from app.cli.progress import Progress
from app.cli.secret import dev_secret
from app.errors import AppError, ConfigError
from app.settings import Settings
from app.storage.embedded import check_unlocked, embedded_servers
from app.storage.migrate import migrate
from app.storage.reach import reach_redis


def check_folder(settings: Settings) -> None:
    """Raise ConfigError if another process has its embedded stores where ours would be."""
    if not (settings.postgres.dsn.get_secret_value() and settings.redis.url.get_secret_value()):
        check_unlocked(settings.data_dir)


@asynccontextmanager
async def open_stores(settings: Settings, on_step: Callable[[str], None]) -> AsyncIterator[Settings]:
    """Both stores ready for use while the block runs; gives the settings with all addresses and the secret filled in.

    Raises ConfigError with one sentence.
    """
    dsn, url = settings.postgres.dsn.get_secret_value(), settings.redis.url.get_secret_value()
    # Addresses first: a wrong one is known before anything is started.
    if url:
        await reach_main_redis(settings, url, on_step)
    if settings.broker.kind == "redis_streams" and (log_url := settings.redis_streams.url.get_secret_value()):
        await reach_redis(
            log_url,
            wait_s=settings.broker.startup_wait_s,
            connect_timeout_s=settings.redis.connect_timeout_s,
            on_step=on_step,
            variable="IM_REDIS_STREAMS__URL",
        )
    if dsn:
        await _migrate(settings, dsn, on_step)
    async with embedded_servers(
        settings.data_dir,
        settings.embedded,
        want_postgres=not dsn,
        want_redis=not url,
        on_step=on_step,
        durable=settings.env != "test",
    ) as embedded:
        if not dsn:
            await _migrate(settings, embedded.dsn, on_step)
        secret = settings.auth.secret.get_secret_value() or await asyncio.to_thread(dev_secret, settings.data_dir)
        filled = {
            "postgres": {"dsn": SecretStr(dsn or embedded.dsn)},
            "redis": {"url": SecretStr(url or embedded.redis_url)},
            "auth": {"secret": SecretStr(secret)},
        }
        yield settings.model_copy(
            update={name: getattr(settings, name).model_copy(update=values) for name, values in filled.items()}
        )


async def reach_main_redis(settings: Settings, url: str, on_step: Callable[[str], None]) -> None:
    """Wait for the Redis at `url`, the one of `[redis]`. Raises ConfigError."""
    await reach_redis(
        url,
        wait_s=settings.redis.startup_wait_s,
        connect_timeout_s=settings.redis.connect_timeout_s,
        on_step=on_step,
    )


@contextmanager
def explained(failed: str = "The server cannot start") -> Iterator[None]:
    """What fails, and an operator can put right, as one sentence that begins with `failed`. Raises ConfigError."""
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigError(
            f"PostgreSQL says: {error}. The user of IM_POSTGRES__DSN must own the database's tables; make it the owner of the database."
        ) from None
    except AppError as error:
        reason = f" ({type(error.__cause__).__name__}: {error.__cause__})" if error.__cause__ else ""
        raise ConfigError(f"{failed}: {error.message}{reason}.") from error


async def migrate_only(settings: Settings) -> None:
    """Bring the database up to date, starting the embedded one for it if no address is given. Raises ConfigError."""
    dsn = settings.postgres.dsn.get_secret_value()
    with Progress(Console(stderr=True)) as progress:
        async with embedded_servers(
            settings.data_dir, settings.embedded, want_postgres=not dsn, want_redis=False, on_step=progress.step
        ) as embedded:
            await _migrate(settings, dsn or embedded.dsn, progress.step)


async def _migrate(settings: Settings, dsn: str, on_step: Callable[[str], None]) -> None:
    with explained():
        await migrate(
            dsn,
            wait_s=settings.postgres.startup_wait_s,
            connect_timeout_s=settings.postgres.connect_timeout_s,
            timeout_s=settings.postgres.migration_timeout_s,
            on_step=on_step,
        )
    on_step("The database is up to date")
