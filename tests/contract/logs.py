"""Where the contract of brokers is tried: for each kind a log that several processes share. A new adapter is one line in `LOGS`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from app.brokers.base import Broker, Record
from app.brokers.memory import MemoryBroker

PARTITIONS = 4
MAX_RECORDS = 100
"""Of a partition or of the whole log; whichever the adapter bounds."""

Connect = Callable[[], Awaitable[Broker]]
"""A started broker on the log of this test, as another process would have it. Stopped at the end of the test."""


@asynccontextmanager
async def memory() -> AsyncIterator[Connect]:
    """One object is the log."""
    broker = MemoryBroker(PARTITIONS, MAX_RECORDS)
    await broker.start()

    async def connect() -> Broker:
        return broker

    yield connect
    await broker.stop()


LOGS: Mapping[str, Callable[[], AbstractAsyncContextManager[Connect]]] = {"memory": memory}


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
