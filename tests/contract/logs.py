"""Where the contract of brokers is tried: for each kind a log that several processes share. A new adapter is one line in `LOGS`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any

from app import settings
from app.brokers.base import Broker, Record
from app.brokers.kafka import KafkaBroker
from app.brokers.memory import MemoryBroker
from app.brokers.redis_streams import RedisStreamsBroker
from app.lifecycle import Readiness, Supervisor, until_there
from app.sections import Kafka
from app.storage.redis import connect as connect_redis
from tests.services import kafka

PARTITIONS = 4
MAX_RECORDS = 100
"""Of a partition or of the whole log; whichever the adapter bounds."""

Connect = Callable[[], Awaitable[Broker]]
"""A started broker on the log of this test, as another process would have it. Stopped at the end of the test."""


@asynccontextmanager
async def memory(url: str) -> AsyncIterator[Connect]:
    """One object is the log."""
    broker = MemoryBroker(PARTITIONS, MAX_RECORDS)
    await broker.start()

    async def connect() -> Broker:
        return broker

    yield connect
    await broker.stop()


@asynccontextmanager
async def redis_streams(url: str, **options: float) -> AsyncIterator[Connect]:
    """Clients of their own for each process; leases of a second, so that tests of their end are quick."""
    deaths: list[str] = []
    limits: dict[str, Any] = {"append_timeout_s": 5, "lease_s": 1, "renew_s": 0.1, "timeout_s": 2} | options
    brokers: list[RedisStreamsBroker] = []

    async def connect() -> Broker:
        client = connect_redis(url, pool_max=8, connect_timeout_s=2, command_timeout_s=limits["timeout_s"])
        broker = RedisStreamsBroker(
            client, Supervisor(deaths.append), Readiness(), PARTITIONS, "test", max_records=MAX_RECORDS, **limits
        )
        await broker.start()
        brokers.append(broker)
        return broker

    yield connect
    for broker in brokers:
        await broker.stop()
    assert deaths == []


_topics = count(1)


async def kafka_options(**changed: object) -> Kafka:
    """A topic and a group of one test, on the Kafka of this process; quicker than in production."""
    server, number = await kafka.running(), next(_topics)
    names = {"bootstrap_servers": [server.address], "topic": f"test.{number}", "group": f"test-{number}"}
    quick = {"session_timeout_s": 4, "heartbeat_s": 0.1, "probe_s": 0.2, "request_timeout_s": 2}
    return Kafka.model_validate(settings.load().kafka.model_dump() | names | quick | changed)


@asynccontextmanager
async def kafka_brokers(
    options: Kafka, append_timeout_s: float = 5
) -> AsyncIterator[Callable[[], Awaitable[KafkaBroker]]]:
    """Each call is another process that uses the same topic."""
    died: list[str] = []
    supervisor = Supervisor(died.append)
    brokers: list[KafkaBroker] = []

    async def connect() -> KafkaBroker:
        broker = KafkaBroker(options, supervisor, Readiness(), partitions=PARTITIONS, append_timeout_s=append_timeout_s)
        await until_there(broker.start, "Kafka", Readiness(), wait_s=30)
        brokers.append(broker)
        return broker

    yield connect
    for broker in brokers:
        await broker.stop()
    assert not died


@asynccontextmanager
async def kafka_log(url: str) -> AsyncIterator[Connect]:
    """A topic."""
    async with kafka_brokers(await kafka_options()) as connect:
        yield connect


LOGS: Mapping[str, tuple[str, Callable[[str], AbstractAsyncContextManager[Connect]]]] = {
    "memory": ("", memory),
    "redis_streams": ("redis_url", redis_streams),
    "kafka": ("", kafka_log),
}
"""By kind: the fixture with the address of its server, emptied for each test, and the log there."""


class Ownership:
    """Remembers what a listener was told."""

    def __init__(self) -> None:
        self.owned: set[int] = set()
        self.fresh: set[int] = set()

    async def on_assigned(self, partitions: Sequence[int], fresh: Collection[int]) -> None:
        assert not self.owned & set(partitions), "assigned twice"
        self.owned |= set(partitions)
        self.fresh |= set(fresh)

    def on_revoked(self, partitions: Sequence[int]) -> None:
        self.owned -= set(partitions)


def values(records: Sequence[Record], partition: int | None = None) -> list[bytes]:
    """What the records of a partition, or all, hold."""
    return [record.value for record in records if partition in (None, record.partition)]


def positions(records: Sequence[Record]) -> dict[int, int]:
    """What is committed when these records are done."""
    return {record.partition: record.offset for record in records}


async def until(condition: Callable[[], bool], within_s: float = 20) -> None:
    """Look every 10 ms. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)
