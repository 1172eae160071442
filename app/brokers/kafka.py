"""The log as a topic of Kafka; the partitions are the topic's own.

Survival: what `append` returned for is on every replica that is in sync (`acks = all`), in the memory of those machines and, as
their kernels write it, on disk. So it survives the crash of any process, Kafka's included, and of all machines but one of those in sync;
`kafka.min_insync_replicas` is how many that are at least. With one replica a crash of its *machine* may lose the last seconds.
What was not acknowledged may or may not be there: `append` says `unknown`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from app.brokers.base import Broker, OwnershipListener, Subscription
from app.brokers.kafka_appender import Appender
from app.brokers.kafka_clients import Connection
from app.brokers.kafka_cluster import Cluster
from app.brokers.kafka_reader import KafkaSubscription
from app.lifecycle import Readiness, Supervisor
from app.sections import Kafka


class KafkaBroker(Broker):
    """Producer, topic and group of one process."""

    name = "kafka"
    durable = True

    def __init__(
        self,
        options: Kafka,
        supervisor: Supervisor,
        readiness: Readiness,
        *,
        partitions: int,
        append_timeout_s: float,
        least_replicas: int = 1,
    ) -> None:
        self.partitions = partitions
        self._options = options
        self._supervisor = supervisor
        self._connection = Connection(options)
        self.cluster = Cluster(self._connection, readiness, least_replicas=least_replicas)
        self.appender = Appender(self._connection, self.cluster, partitions, append_timeout_s)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect, and make or check the topic. Raises Busy, ConfigError."""
        try:
            await self.cluster.start(self.partitions)
            await self.appender.start()
        except BaseException:
            await self.stop()
            raise
        for name, loop in (("kafka_watch", self.cluster.watch), ("kafka_producer", self.appender.run)):
            self._tasks.append(self._supervisor.spawn(loop(), name))

    def append(self, partition: int, values: Sequence[bytes]) -> asyncio.Future[None]:
        """As in `Broker`, after at most `append_timeout_s`. Whoever appends bounds what waits here for the batch under way."""
        return asyncio.ensure_future(self.appender.append(partition, values))

    async def subscribe(self, listener: OwnershipListener) -> Subscription:
        """Join the group. Raises Busy."""
        subscription = KafkaSubscription(self._connection, self.cluster, listener)
        await subscription.join()
        return subscription

    async def backlog(self) -> Mapping[int, int]:
        """As in `Broker`: the end of each log minus the group's position."""
        marks = await self.cluster.marks(range(self.partitions))
        return {partition: mark.end - mark.position for partition, mark in marks.items()}

    async def stop(self) -> None:
        """Disconnect; what is not acknowledged by then is given up. Takes at most some request timeouts."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            await self._supervisor.end(task, self._options.request_timeout_s)
        with suppress(OSError):
            await self.appender.stop()
        await self.cluster.stop()
