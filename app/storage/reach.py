"""First contact with the stores: wait a little for a server that is still starting, say in one sentence what is wrong otherwise."""

import ssl
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import asyncpg
import stamina
from redis import exceptions as redis_errors
from redis.asyncio import Redis

from app.errors import ConfigError

POSTGRES_MIN_MAJOR = 15
REDIS_MIN_MAJOR = 7
"""Valkey 8 and later present themselves as Redis 7.2."""
RETRY_FIRST_S, RETRY_MAX_S = 0.1, 1.0

Step = Callable[[str], None]


class Unreachable(ConfigError):
    """Nobody answers at the address."""


async def reach_postgres(
    dsn: str, *, wait_s: float, connect_timeout_s: float, on_step: Step
) -> "asyncpg.Connection[asyncpg.Record]":
    """Connect to `dsn`, for up to `wait_s` seconds while it cannot be reached. The caller closes the connection.

    Raises ConfigError; its text never holds the password, nor parts of an address that cannot be parsed.
    """
    place = _place(dsn)
    patience = _Patience(f"PostgreSQL at {place}", on_step, _postgres_may_come)

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(dsn, timeout=connect_timeout_s)

    try:
        connection = await _retrying(wait_s).on(patience)(connect)
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise ConfigError(f"PostgreSQL at {place} refused the login: {error}; check IM_POSTGRES__DSN.") from None
    except asyncpg.TooManyConnectionsError as error:
        raise ConfigError(
            f"PostgreSQL at {place} has no connection left ({error}); raise its max_connections, or lower IM_POSTGRES__POOL_MAX."
        ) from None
    except asyncpg.PostgresError as error:
        raise ConfigError(f"PostgreSQL at {place} refused the connection: {error}; check IM_POSTGRES__DSN.") from None
    except (OSError, TimeoutError) as error:
        raise Unreachable(
            f"PostgreSQL at {place} cannot be reached ({_reason(error)}); start it or correct IM_POSTGRES__DSN."
        ) from None
    except (ValueError, asyncpg.InterfaceError):
        raise ConfigError(
            "IM_POSTGRES__DSN is not an address of PostgreSQL; it looks like postgresql://user:password@host:5432/database."
        ) from None
    version = connection.get_server_version()
    if version.major < POSTGRES_MIN_MAJOR:
        await connection.close()
        raise ConfigError(f"PostgreSQL at {place} is version {version.major}; {POSTGRES_MIN_MAJOR} or newer is needed.")
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        await connection.close()
        raise ConfigError(f"The database at {place} has the encoding {encoding}; make one with ENCODING 'UTF8'.")
    return connection


async def reach_redis(
    url: str, *, wait_s: float, connect_timeout_s: float, on_step: Step, variable: str = "IM_REDIS__URL"
) -> None:
    """See that a usable Redis or Valkey answers at `url`, waiting up to `wait_s` seconds while it cannot be reached.

    `variable` is where the address comes from. Raises ConfigError; its text never holds the password.
    """
    place = _place(url)
    patience = _Patience(f"Redis at {place}", on_step, _redis_may_come)
    try:
        client = Redis.from_url(url, socket_timeout=connect_timeout_s, socket_connect_timeout=connect_timeout_s)
    except (ValueError, TypeError):
        raise ConfigError(
            f"{variable} is not an address of Redis; it looks like redis://:password@host:6379/0 or unix:///path/to/socket."
        ) from None

    async def ask() -> str:
        return str((await client.info("server"))["redis_version"])

    try:
        version = await _retrying(wait_s).on(patience)(ask)
    except (redis_errors.AuthenticationError, redis_errors.ResponseError) as error:
        raise ConfigError(f"Redis at {place} refused the login: {error}; check {variable}.") from None
    except (redis_errors.RedisError, OSError) as error:
        raise Unreachable(
            f"Redis at {place} cannot be reached ({_reason(error)}); start it or correct {variable}."
        ) from None
    finally:
        await client.aclose()
    if int(version.partition(".")[0]) < REDIS_MIN_MAJOR:
        raise ConfigError(f"Redis at {place} is version {version}; {REDIS_MIN_MAJOR} or newer is needed.")


def _retrying(wait_s: float) -> stamina.AsyncRetryingCaller:
    """What is called takes no arguments: they would be logged at each retry, and addresses hold passwords."""
    return stamina.AsyncRetryingCaller(
        attempts=None if wait_s else 1,
        timeout=wait_s or None,
        wait_initial=RETRY_FIRST_S,
        wait_max=RETRY_MAX_S,
        wait_jitter=RETRY_FIRST_S,
    )


class _Patience:
    """Decides whether to try again, and says once that it waits."""

    def __init__(self, what: str, on_step: Step, may_come: Callable[[Exception], bool]) -> None:
        self._what = what
        self._on_step = on_step
        self._may_come = may_come
        self._said = False

    def __call__(self, error: Exception) -> bool:
        again = self._may_come(error)
        if again and not self._said:
            self._said = True
            self._on_step(f"Waiting for {self._what} ({_reason(error)}) …")
        return again


def _postgres_may_come(error: Exception) -> bool:
    """Unreachable, starting or full; not a wrong password, name or certificate."""
    coming = (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError)
    return isinstance(error, coming) and not isinstance(error, ssl.SSLError)


def _redis_may_come(error: Exception) -> bool:
    coming = (OSError, redis_errors.ConnectionError, redis_errors.TimeoutError)
    return isinstance(error, coming) and not isinstance(error, redis_errors.AuthenticationError | ssl.SSLError)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError | redis_errors.TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).rstrip(".") or type(error).__name__


def _place(address: str) -> str:
    """Host and port or socket of a URL; nothing else of it, for the rest may be secret."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "the configured address"
    if not host:
        host = parse_qs(parts.query).get("host", [parts.path if parts.scheme == "unix" else ""])[0]
    return (f"{host}:{port}" if port else host) or "the default address"
