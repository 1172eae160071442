"""Redis or Valkey through redis-py: one client per process, always pipelined, bounded waits."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

UNAVAILABLE: tuple[type[BaseException], ...] = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OSError, TimeoutError)
"""Redis is away; the data are not at fault."""

__all__ = ["UNAVAILABLE", "Redis", "RedisError", "connect"]


def connect(url: str, *, pool_max: int, connect_timeout_s: float, command_timeout_s: float) -> Redis:
    """A client that connects on first use; close it with `aclose()`.

    One retry on a fresh connection: after a restart of the server every pooled connection is dead once.
    """
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        url,
        max_connections=pool_max,
        timeout=command_timeout_s,
        socket_timeout=command_timeout_s,
        socket_connect_timeout=connect_timeout_s,
        retry=Retry(NoBackoff(), 1),
        protocol=2,
    )
    return Redis.from_pool(pool)
