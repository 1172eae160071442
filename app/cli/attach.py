"""The stores as they are, for commands that look at them beside a running server. Nothing is made and nothing migrated."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from pydantic import SecretStr

from app.cli.stores import explained, reach_main_redis
from app.errors import ConfigError
from app.settings import MIN_SECRET_CHARS, Settings
from app.storage.embedded import EmbeddedServers, embedded_servers, has_database, running_servers
from app.storage.migrate import pending_migrations

WAIT_MAX_S = 5.0
"""For a store that is away: somebody looks at the screen, and it is the answer."""


@asynccontextmanager
async def existing_stores(
    settings: Settings, on_step: Callable[[str], None], *, need_redis: bool = True
) -> AsyncIterator[Settings]:
    """Both stores within reach while the block runs; gives the settings with all addresses filled in.

    Embedded stores are those of the process that runs on the data folder, or are started here when nobody does: Valkey is empty then.
    Without `need_redis` Redis may be away. A store that is away is waited for `WAIT_MAX_S` seconds at most. Raises ConfigError with one
    sentence when there is no database, or it is of another release.
    """
    settings = _impatient(settings)
    dsn, url = settings.postgres.dsn.get_secret_value(), settings.redis.url.get_secret_value()
    async with AsyncExitStack() as stack:
        embedded = EmbeddedServers()
        if not (dsn and url):
            embedded = await _embedded(settings, stack, on_step, want_postgres=not dsn, want_redis=not url)
        dsn, url = dsn or embedded.dsn, url or embedded.redis_url
        if need_redis:
            await reach_main_redis(settings, url, on_step)
        with explained():
            pending = await pending_migrations(
                dsn,
                wait_s=settings.postgres.startup_wait_s,
                connect_timeout_s=settings.postgres.connect_timeout_s,
                on_step=on_step,
            )
        if pending:
            raise ConfigError(
                f"The database lacks {len(pending)} migrations of this program, the first is {pending[0]}; `run.py migrate` applies them."
            )
        # Nothing is signed here; a command beside a server need not know its secret.
        secret = settings.auth.secret.get_secret_value() or secrets.token_hex(MIN_SECRET_CHARS)
        filled = {"postgres": {"dsn": dsn}, "redis": {"url": url}, "auth": {"secret": secret}}
        yield settings.model_copy(
            update={
                name: getattr(settings, name).model_copy(
                    update={key: SecretStr(value) for key, value in values.items()}
                )
                for name, values in filled.items()
            }
        )


def _impatient(settings: Settings) -> Settings:
    """Servers wait for minutes in production, where processes start in any order."""
    postgres, redis = settings.postgres, settings.redis
    return settings.model_copy(
        update={
            "postgres": postgres.model_copy(update={"startup_wait_s": min(postgres.startup_wait_s, WAIT_MAX_S)}),
            "redis": redis.model_copy(update={"startup_wait_s": min(redis.startup_wait_s, WAIT_MAX_S)}),
        }
    )


async def _embedded(
    settings: Settings,
    stack: AsyncExitStack,
    on_step: Callable[[str], None],
    *,
    want_postgres: bool,
    want_redis: bool,
) -> EmbeddedServers:
    running = running_servers(settings.data_dir)
    if running is not None:
        on_step(f"Looking at the stores of the server that runs on {settings.data_dir}")
        return running
    if want_postgres and not has_database(settings.data_dir):
        raise ConfigError(
            f"There is no database in the data folder {settings.data_dir}; start the server once, or set IM_DATA_DIR or IM_POSTGRES__DSN."
        )
    return await stack.enter_async_context(
        embedded_servers(
            settings.data_dir,
            settings.embedded,
            want_postgres=want_postgres,
            want_redis=want_redis,
            on_step=on_step,
            durable=settings.env != "test",
        )
    )
