"""Redis or Valkey through redis-py: one client per process, always pipelined, bounded waits."""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import hiredis
import structlog
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as PlainRedis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

UNAVAILABLE: tuple[type[BaseException], ...] = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OSError,
    TimeoutError,
)
"""Redis is away; the data are not at fault."""
ERRORS: tuple[type[BaseException], ...] = (*UNAVAILABLE, RedisError)
"""Away, or not able to do what was asked (out of memory, read-only, loading)."""
KEY_AT_FAULT = ("WRONGTYPE", "not an integer", "would overflow")
"""How Redis says that it is well, but a key holds something else than it should."""

log = structlog.get_logger(__name__)

__all__ = ["ERRORS", "UNAVAILABLE", "Line", "Redis", "Script", "connect", "run_scripts", "unlink_broken"]


class PackedConnection(AbstractConnection):
    """Commands are packed by hiredis, in C; redis-py packs those of asyncio in Python, which costs 6 µs more for each."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """One command as bytes. Names of two words, such as `SCRIPT LOAD`, are two arguments on the wire."""
        return [hiredis.pack_command((*args[0].split(), *args[1:]))]


class Redis(PlainRedis):
    """Every command and every `run` takes `timeout_s` seconds at most, the wait for a connection included."""

    def __init__(self, pool: BlockingConnectionPool, timeout_s: float) -> None:
        super().__init__(connection_pool=pool)
        self.auto_close_connection_pool = True
        self._timeout_s = timeout_s

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """As redis-py's. Raises TimeoutError after `timeout_s`."""
        async with asyncio.timeout(self._timeout_s):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py has no types here

    async def run(self, commands: Sequence[tuple[Any, ...]], *, errors: bool = False) -> list[Any]:
        """Many commands in one write; the replies as they came, in order. redis-py's pipeline takes 12 µs more for each.

        The error of a single command is raised after all have run; with `errors` it stands in the place of its reply instead. Raises
        redis errors, and TimeoutError after `timeout_s`: the connection is closed then, so late replies meet nobody.
        """
        if not commands:
            return []
        packed = b"".join([hiredis.pack_command(command) for command in commands])
        pool: Any = self.connection_pool
        async with asyncio.timeout(self._timeout_s):
            connection = await pool.get_connection()
            try:
                try:
                    replies = await _exchange(connection, packed, len(commands))
                except RedisConnectionError:
                    # After a restart of the server every pooled connection is dead once.
                    replies = await _exchange(connection, packed, len(commands))
            finally:
                await pool.release(connection)
        if not errors:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


async def _exchange(connection: Any, packed: bytes, count: int) -> list[Any]:
    await connection.send_packed_command(packed)
    replies: list[Any] = []
    for _ in range(count):
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def connect(url: str, *, pool_max: int, connect_timeout_s: float, command_timeout_s: float) -> Redis:
    """A client that connects on first use; close it with `aclose()`. Everything is tried once more on a fresh connection."""
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        max_connections=pool_max,
        timeout=command_timeout_s,
        # Bounded above instead.
        socket_timeout=None,
        socket_connect_timeout=connect_timeout_s,
        retry=Retry(NoBackoff(), 1),
        protocol=2,
        # The default reads the package's metadata from disk for every connection, on the event loop.
        driver_info=None,
    )
    # TCP, TLS or a Unix socket, as the URL says.
    pool.connection_class = type("Connection", (PackedConnection, pool.connection_class), {})
    return Redis(pool, command_timeout_s)


class Line:
    """One connection of its own, for one task at a time. Nothing is repeated here, so its user knows what was sent."""

    def __init__(self, redis: Redis) -> None:
        self._pool: Any = redis.connection_pool
        self._connection: Any = None

    async def open(self) -> bool:
        """Be connected to a server that answers; true: anew. Raises redis errors: nothing was sent then. Takes as long as it takes."""
        if self._connection is None:
            self._connection = self._pool.make_connection()
        if self._connection.is_connected:
            # True for a connection that the server closed meanwhile, too.
            if not await self._connection.can_read():
                return False
            await self.close()
        try:
            await self._connection.connect()
            await self.send([("PING",)])
            await self.reply()
        except BaseException:
            await self.close()
            raise
        return True

    async def send(self, commands: Iterable[tuple[Any, ...]]) -> None:
        """Write commands; each has one reply. Raises redis errors."""
        packed = b"".join([hiredis.pack_command(command) for command in commands])
        if packed:
            await self._connection.send_packed_command(packed, check_health=False)

    async def reply(self) -> Any:
        """The next reply as it came. Raises redis errors; ResponseError is a reply, and the connection stays."""
        return await self._connection.read_response()

    async def close(self) -> None:
        """Drop the connection; replies on their way meet nobody."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)


class Script:
    """A Lua script and its SHA-1, by which Redis knows it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


async def run_scripts(
    redis: Redis, calls: Sequence[tuple[Script, Sequence[str], Sequence[Any]]], *, errors: bool = False
) -> list[Any]:
    """Run scripts in one write; each call is (script, keys, arguments) and touches one hash tag. Answers in order.

    After a restart Redis knows no scripts: the unknown ones are loaded and only the calls that did not run are repeated.
    Raises redis errors; with `errors` that of a single call stands in the place of its answer instead.
    """
    answers = await _evalsha(redis, calls)
    missing = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if missing:
        for script in {calls[index][0] for index in missing}:
            await redis.script_load(script.source)
        again = await _evalsha(redis, [calls[index] for index in missing])
        for index, answer in zip(missing, again, strict=True):
            answers[index] = answer
    if not errors:
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
    return answers


async def unlink_broken(redis: Redis, keys: Sequence[str], replies: Sequence[Any]) -> None:
    """Unlink those of `keys`, in the order of their replies, that hold something else than they should: for what is built anew.

    Raises any other error among the replies, and redis errors.
    """
    broken = []
    for key, reply in zip(keys, replies, strict=True):
        if isinstance(reply, Exception):
            if not any(words in str(reply) for words in KEY_AT_FAULT):
                raise reply
            broken.append(key)
    if broken:
        log.error("redis_keys_dropped", count=len(broken), first=broken[0])
        await redis.run([("UNLINK", key) for key in broken])


async def _evalsha(redis: Redis, calls: Sequence[tuple[Script, Sequence[str], Sequence[Any]]]) -> list[Any]:
    commands = [("EVALSHA", script.sha, len(keys), *keys, *arguments) for script, keys, arguments in calls]
    return await redis.run(commands, errors=True)
