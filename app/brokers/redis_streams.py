"""The log as Redis Streams, one stream for each partition.

Survival of un-acked input when Redis crashes or is killed, by how it is run:

- without persistence: nothing survives. What still waits for its answer is appended again after the restart (`on_lost`); if its
  process died too, or Redis was emptied while it ran, its sender gets none (`timeout`, `unknown`) and sends again with the same key;
- `appendonly yes`, `appendfsync everysec`: all but about the last second;
- `appendfsync always`: everything that was appended;
- replicas: a failover loses what was not replicated yet; nothing here waits for replicas.

Acked messages are in PostgreSQL and never at risk. A `maxmemory-policy` that evicts `allkeys` may drop a whole stream with its
un-acked input; give the log a Redis of its own (`redis_streams.url`) with `noeviction` where that matters.

Keys, by partition `p`: `Log:{p}` the un-committed entries with a consumer group that holds the position, `Log:{p}:Owner`; and
`Log:Readers`. A reader waits on all its streams in one XREAD, so Redis must not be in cluster mode.
"""

import asyncio
import uuid
from collections.abc import Mapping, Sequence

import structlog

from app.brokers.base import Broker, OwnershipListener, Subscription
from app.brokers.streams_append import Appender
from app.brokers.streams_keys import stream_key
from app.brokers.streams_leases import away
from app.brokers.streams_reader import StreamsSubscription
from app.errors import ConfigError
from app.lifecycle import Readiness, Supervisor
from app.storage.redis import ERRORS, Redis

log = structlog.get_logger(__name__)


class RedisStreamsBroker(Broker):
    """`redis` is a client of its own, closed by `stop`. At most `max_records` un-committed records of each partition."""

    name = "redis_streams"
    durable = True

    def __init__(
        self,
        redis: Redis,
        supervisor: Supervisor,
        readiness: Readiness,
        partitions: int,
        node_id: str,
        *,
        max_records: int,
        append_timeout_s: float,
        lease_s: float,
        renew_s: float,
        timeout_s: float,
    ) -> None:
        self.partitions = partitions
        self._redis = redis
        self._supervisor = supervisor
        self._node_id = node_id
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._timeout_s = timeout_s
        self._appender = Appender(redis, readiness, self._lost, max_records=max_records, timeout_s=append_timeout_s)
        self._task: asyncio.Task[None] | None = None

    def _lost(self) -> bool:
        # Looked up at each call: it is set after this object was made.
        return self.on_lost()

    async def start(self) -> None:
        """Connect, and look what kind of Redis it is."""
        try:
            info = await self._redis.info()
            await self._appender.open()
        except ERRORS as error:
            raise away(error) from error
        if "cluster" in (info.get("redis_mode"), info.get("server_mode")):
            raise ConfigError("redis_streams.url is a Redis in cluster mode; give the log a Redis of its own.")
        if info.get("maxmemory") and str(info.get("maxmemory_policy")).startswith("allkeys"):
            log.warning("log_may_be_evicted", policy=info["maxmemory_policy"])
        self._task = self._supervisor.spawn(self._appender.run(), "log_appender")

    def append(self, partition: int, values: Sequence[bytes]) -> asyncio.Future[None]:
        """XADD, in one pipeline with what others append now; held as Redis holds it (see above)."""
        return self._appender.append(partition, values)

    async def subscribe(self, listener: OwnershipListener) -> Subscription:
        """Register as a reader."""
        name = f"{self._node_id}:{uuid.uuid4().hex}"
        subscription = StreamsSubscription(
            self._redis,
            self._supervisor,
            listener,
            self.partitions,
            name,
            lease_s=self._lease_s,
            renew_s=self._renew_s,
            timeout_s=self._timeout_s,
        )
        await subscription.start()
        return subscription

    async def backlog(self) -> Mapping[int, int]:
        """The lengths of the streams: what is committed is trimmed."""
        try:
            return dict(enumerate(await self._redis.run([("XLEN", stream_key(p)) for p in range(self.partitions)])))
        except ERRORS as error:
            raise away(error) from error

    async def stop(self) -> None:
        """Appends under way end with an unknown outcome."""
        task, self._task = self._task, None
        if task is not None:
            await self._supervisor.end(task, self._timeout_s)
        await self._redis.aclose()
