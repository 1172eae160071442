"""The contract of a broker: an ordered log per partition, with at-least-once reading.

**Order.** Records of one partition are read in the order in which their appends were begun; records of one append keep their order.
**Delivery.** A record is handed out until its position is committed; after a restart, a rebalance or a new subscription it comes again.
**Who serialises.** A partition has one owner at a time as far as the broker can know; a stale owner is stopped by the fence in
PostgreSQL (`partition_owner`), never by the broker alone. Open subscriptions share the partitions evenly.
**Survival.** What un-acked input survives a crash differs between brokers; each adapter's docstring says it.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of the log; `offset` rises by partition, `appended_ms` (since 1970) is when it entered the log."""

    partition: int
    offset: int
    value: bytes
    appended_ms: int


class OwnershipListener(Protocol):
    """Told when partitions come and go."""

    async def on_assigned(self, partitions: Sequence[int], fresh: Collection[int]) -> None:
        """These partitions are ours now; nothing of them is handed out before this returned.

        The logs of those in `fresh` began anew: offsets known from before mean nothing there. What this raises, `fetch` raises, and
        it is called again.
        """

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """These partitions are no longer ours; what is in work for them must not be answered. Must not block or raise."""


class Subscription(ABC):
    """The reading side of one consumer process. One call of each kind at a time: a `commit` may go on beside the next `fetch`."""

    @abstractmethod
    async def fetch(self, max_records: int) -> list[Record]:
        """Wait for records; then what is there, at most `max_records`, rising within each partition.

        Never empty. Partitions are taken here, and given up here once others have less than their share; a partition that the broker
        gave to another meanwhile may go at any time. Cancelling a call loses nothing. Raises Busy while the broker is away and
        whatever the listener raises: call again.
        """

    @abstractmethod
    async def commit(self, positions: Mapping[int, int]) -> None:
        """Everything up to and including these offsets, by partition, is done and will not come again.

        Partitions that went meanwhile are left alone, though they may have come back: their owner gets what was not committed.
        Raises Busy while the broker is away: call again.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give up all partitions, so that others have them at once. Does not raise when the broker is away."""


class Broker(ABC):
    """One log. `append` and `subscribe` may be used from one event loop by any number of tasks."""

    name: str
    """Stands in `partition_owner` and `dead_letters`."""
    partitions: int
    durable: bool
    """What was appended outlives this process."""
    on_lost: Callable[[], bool] = staticmethod(lambda: False)
    """Set by who appends. Called before the next append when the log may have lost what was appended; true: that is appended again,
    ahead of everything else. Must not block or raise. Logs that keep what they returned for need not call it."""

    @abstractmethod
    async def start(self) -> None:
        """Connect. Raises Busy when the broker is away, ConfigError when it is not what the settings say."""

    @abstractmethod
    def append(self, partition: int, values: Sequence[bytes]) -> asyncio.Future[None]:
        """Begin to append to one partition, at once; appends of many partitions so need no task each.

        The future's result means: held as the adapter's docstring states. Its exception is `Busy` (outcome none) when nothing was
        appended because the log is full or known to be away, and `Internal` (outcome unknown) when it is not known whether it was;
        nor is it known of one that was cancelled. It ends within the adapter's time limit.
        """

    @abstractmethod
    async def subscribe(self, listener: OwnershipListener) -> Subscription:
        """Join as a reader. Raises Busy while the broker is away."""

    @abstractmethod
    async def backlog(self) -> Mapping[int, int]:
        """Records that are not committed, by partition, whoever appended them. Raises Busy while the broker is away."""

    @abstractmethod
    async def stop(self) -> None:
        """Disconnect."""

    def partition_of(self, group_id: int) -> int:
        """The partition of a group: CRC-32 of its decimal id, so that every language and process agrees."""
        return crc32(b"%d" % group_id) % self.partitions
