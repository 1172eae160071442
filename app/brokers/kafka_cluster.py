"""What this process knows of the Kafka cluster: is it there, how long are the logs, what has the group committed."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidReplicationFactorError,
    KafkaError,
    NoError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from app.brokers.kafka_clients import AWAY, Connection, Desk
from app.errors import Busy, ConfigError
from app.lifecycle import Readiness

T = TypeVar("T")
log = structlog.get_logger(__name__)

AWAY_RETRY_MS = 1000
"""Asked to come back after about one look at the cluster."""
LOOK_S = 0.05
IN_SYNC = "min.insync.replicas"
REFUSALS = (
    ClusterAuthorizationFailedError,
    TopicAuthorizationFailedError,
    InvalidReplicationFactorError,
    PolicyViolationError,
)
"""Why a server does not make a topic, and will not tomorrow."""


def away(reason: BaseException | None = None) -> Busy:
    """What callers are told; the reason goes into the log as its cause."""
    busy = Busy("the message log is away; try again shortly", retry_after_ms=AWAY_RETRY_MS)
    busy.__cause__ = reason
    return busy


@dataclass(frozen=True, slots=True)
class Topic:
    """How a topic is kept. `in_sync` is its `min.insync.replicas`, None where we may not ask."""

    partitions: int
    replicas: int
    """Of the partition that has the fewest."""
    in_sync: int | None = None


@dataclass(frozen=True, slots=True)
class Marks:
    """Of one partition: the first offset, the next one to be given, and the group's position, None if it has none."""

    begin: int
    end: int
    committed: int | None

    @property
    def fresh(self) -> bool:
        """The group's position, if any, belongs to another log than this one."""
        return self.committed is None or not self.begin <= self.committed <= self.end

    @property
    def position(self) -> int:
        """Where reading begins."""
        return self.begin if self.committed is None or self.fresh else self.committed


class Cluster:
    """Looks at the cluster every `probe_s`, and tells `/readyz`; one object of a broker.

    A topic with fewer than `least_replicas` in all or in sync, or fewer than the settings say, is logged at the start.
    """

    def __init__(self, connection: Connection, readiness: Readiness, *, least_replicas: int) -> None:
        self._connection = connection
        self._readiness = readiness
        self._least_replicas = least_replicas
        self._options = connection.options
        self._desk: Desk | None = None
        self.away = False

    async def start(self, partitions: int) -> None:
        """Connect; make or check the topic. Raises Busy when the cluster is away, ConfigError when it is not what the settings say."""
        await self._connection.prepare()
        topic = await self._ensure_topic(partitions)
        try:
            await self._open()
        except AWAY as error:
            raise away(error) from error
        self._judge(topic)

    async def watch(self) -> None:
        """Keep `away` true to the facts, until cancelled."""
        while True:
            await asyncio.sleep(self._options.probe_s)
            self.away = not await self._look()
            if self.away:
                self._readiness.fail("log", "Kafka does not answer")
            else:
                self._readiness.clear("log")

    async def marks(self, partitions: Collection[int]) -> Mapping[int, Marks]:
        """Of these partitions. Raises Busy."""
        wanted = self._topic_partitions(partitions)

        async def ask(desk: Desk) -> Mapping[int, Marks]:
            ends = await desk.end_offsets(wanted)
            begins = await desk.beginning_offsets(wanted)
            committed = await desk.committed_offsets(wanted)
            return {one.partition: Marks(begins[one], ends[one], committed.get(one)) for one in wanted}

        return await self._ask(ask)

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        """The next offset to be given, by partition. Raises Busy."""
        wanted = self._topic_partitions(partitions)

        async def ask(desk: Desk) -> Mapping[int, int]:
            return {one.partition: offset for one, offset in (await desk.end_offsets(wanted)).items()}

        return await self._ask(ask)

    async def stop(self) -> None:
        """Disconnect."""
        desk, self._desk = self._desk, None
        if desk is not None:
            await desk.end(self._options.request_timeout_s)

    def _topic_partitions(self, partitions: Collection[int]) -> list[TopicPartition]:
        return [TopicPartition(self._options.topic, partition) for partition in partitions]

    async def _ask(self, question: Callable[[Desk], Awaitable[T]]) -> T:
        if self._desk is None:
            raise away()
        try:
            async with asyncio.timeout(self._options.request_timeout_s):
                return await question(self._desk)
        except AWAY as error:
            raise away(error) from error

    async def _open(self) -> None:
        desk = self._connection.desk()
        try:
            async with asyncio.timeout(self._options.request_timeout_s):
                await desk.start()
                await desk.refresh(self._options.topic)
        except BaseException:
            await desk.end(LOOK_S)
            raise
        self._desk = desk

    async def _look(self) -> bool:
        """One question to whichever server answers. Who does not is asked by a new client: the servers known may all be others now."""
        try:
            if self._desk is None:
                await self._open()
                return True
            async with asyncio.timeout(self._options.request_timeout_s):
                if await self._desk.refresh(self._options.topic):
                    return True
        except AWAY:
            pass
        desk, self._desk = self._desk, None
        if desk is not None:
            await desk.end(LOOK_S)
        return False

    def _judge(self, topic: Topic) -> None:
        """Say it if less of the log survives the loss of a machine than is wanted."""
        o = self._options
        replicas, in_sync = (max(n, self._least_replicas) for n in (o.replication, o.min_insync_replicas))
        if topic.replicas < replicas or (topic.in_sync is not None and topic.in_sync < in_sync):
            log.warning(
                "kafka_topic_has_few_replicas",
                topic=o.topic,
                replicas=topic.replicas,
                min_insync_replicas=topic.in_sync,
                hint="what was acknowledged may go with one machine; before a topic is made set IM_KAFKA__REPLICATION=3 and "
                "IM_KAFKA__MIN_INSYNC_REPLICAS=2, change one that is there by kafka-reassign-partitions.sh and kafka-configs.sh",
            )

    async def _ensure_topic(self, partitions: int) -> Topic:
        o = self._options
        admin = AIOKafkaAdminClient(**self._connection.arguments(o.request_timeout_s))
        try:
            # Each step has a timeout of its own; all together a busy server may take a little longer.
            async with asyncio.timeout(3 * o.request_timeout_s):
                await admin.start()
                topic = await _find(admin, o.topic)
                if topic is None:
                    await self._make_topic(admin, partitions)
                    while (topic := await _find(admin, o.topic)) is None:  # noqa: ASYNC110 - a server tells by answering
                        await asyncio.sleep(LOOK_S)
                topic = replace(topic, in_sync=await _in_sync(admin, o.topic))
        except AWAY as error:
            raise away(error) from error
        finally:
            await admin.close()
        if topic.partitions != partitions:
            raise ConfigError(
                f"Topic {o.topic} has {topic.partitions} partitions and broker.partitions is {partitions}; set broker.partitions to "
                f"{topic.partitions}, or name another topic in kafka.topic."
            )
        return topic

    async def _make_topic(self, admin: AIOKafkaAdminClient, partitions: int) -> None:
        o = self._options
        how = f"make it with {partitions} partitions"
        if not o.create_topic:
            raise ConfigError(f"Topic {o.topic} does not exist; {how}, or set kafka.create_topic = true.")
        configs = {IN_SYNC: str(o.min_insync_replicas), "retention.ms": str(o.retention_s * 1000)}
        answer = await admin.create_topics([NewTopic(o.topic, partitions, o.replication, topic_configs=configs)])
        for _, code, *_ in answer.topic_errors:
            kind = for_code(code)
            if kind in REFUSALS:
                raise ConfigError(
                    f"Kafka does not make topic {o.topic} ({kind.__name__}); {how}, or change kafka.replication."
                )
            if kind not in (NoError, TopicAlreadyExistsError):
                raise kind


async def _find(admin: AIOKafkaAdminClient, topic: str) -> Topic | None:
    """None if there is none. All topics are asked for: naming one may create it."""
    for known in await admin.describe_topics():
        if known["topic"] == topic and (partitions := known["partitions"]):
            return Topic(len(partitions), min(len(partition["replicas"]) for partition in partitions))
    return None


async def _in_sync(admin: AIOKafkaAdminClient, topic: str) -> int | None:
    """`min.insync.replicas` of a topic; None where the server does not tell us, which is no reason not to start."""
    with suppress(KafkaError):
        for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {IN_SYNC: None})]):
            for *_, entries in answer.resources:
                for name, value, *_ in entries:
                    if name == IN_SYNC:
                        return int(value)
    return None
