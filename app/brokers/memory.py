"""The log in this process's memory, for `role = all`.

Survival: nothing un-acked survives the process. Senders of lost input got no answer and send again with the same `client_msg_id`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence

from app.brokers.base import Broker, OwnershipListener, Record, Subscription
from app.brokers.shares import share
from app.errors import Busy

# Asked to come back after about two batches' time.
FULL_RETRY_MS = 200


class Log:
    """One partition: un-committed records, and who reads them."""

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self.next_offset = 0
        self.owner: MemorySubscription | None = None
        self.fresh = True
        self.handed_out = 0
        """How many records at the head are with the owner."""


class MemoryBroker(Broker):
    """Partitions as deques; bounded by `max_records` un-committed records in all."""

    name = "memory"
    durable = False

    def __init__(self, partitions: int, max_records: int) -> None:
        self.partitions = partitions
        self._max_records = max_records
        self.logs = [Log() for _ in range(partitions)]
        self.depth = 0
        self.readers: dict[str, MemorySubscription] = {}
        self._numbers = 0

    async def start(self) -> None:
        """Nothing to connect to."""

    def append(self, partition: int, values: Sequence[bytes]) -> asyncio.Future[None]:
        """Append; held until committed or the process ends. Busy when full: nothing of `values` is appended then."""
        done = asyncio.get_running_loop().create_future()
        if self.depth + len(values) > self._max_records:
            full = "too many messages are waiting to be stored; try again shortly"
            done.set_exception(Busy(full, retry_after_ms=FULL_RETRY_MS))
            return done
        log, now = self.logs[partition], int(time.time() * 1000)
        for offset, value in enumerate(values, log.next_offset):
            log.records.append(Record(partition, offset, value, now))
        log.next_offset += len(values)
        self.depth += len(values)
        if log.owner is not None:
            log.owner.notify(partition)
        done.set_result(None)
        return done

    async def subscribe(self, listener: OwnershipListener) -> Subscription:
        """Join the readers; all of them settle their shares at their next fetch."""
        self._numbers += 1
        name = f"{self._numbers:09}"
        self.readers[name] = MemorySubscription(self, name, listener)
        self.wake_readers()
        return self.readers[name]

    def wake_readers(self) -> None:
        """Shares or free partitions have changed."""
        for reader in self.readers.values():
            reader.wake_up.set()

    async def backlog(self) -> Mapping[int, int]:
        """Un-committed records, by partition."""
        return {partition: len(log.records) for partition, log in enumerate(self.logs)}

    async def stop(self) -> None:
        """Nothing to disconnect from."""


class MemorySubscription(Subscription):
    """Reads its share of a MemoryBroker, partitions with new records in turn."""

    def __init__(self, broker: MemoryBroker, name: str, listener: OwnershipListener) -> None:
        self._broker = broker
        self._name = name
        self._listener = listener
        self._owned: list[int] = []
        self._waiting: dict[int, None] = {}
        self.wake_up = asyncio.Event()

    def notify(self, partition: int) -> None:
        """There is something new in `partition`."""
        self._waiting[partition] = None
        self.wake_up.set()

    async def fetch(self, max_records: int) -> list[Record]:
        """See Subscription."""
        await self._settle()
        while not self._waiting:
            self.wake_up.clear()
            await self.wake_up.wait()
            await self._settle()
        records: list[Record] = []
        for partition in list(self._waiting):
            log = self._broker.logs[partition]
            taken = min(len(log.records) - log.handed_out, max_records - len(records))
            records.extend(log.records[index] for index in range(log.handed_out, log.handed_out + taken))
            log.handed_out += taken
            # Re-inserted at the end when something is left: no partition starves the others.
            del self._waiting[partition]
            if log.handed_out < len(log.records):
                self._waiting[partition] = None
            if len(records) == max_records:
                break
        return records

    async def _settle(self) -> None:
        """Give up what is beyond the share, take what is free within it."""
        size = share(self._broker.partitions, self._broker.readers, self._name)
        if len(self._owned) > size:
            self._give_up(self._owned[size:])
        free = [p for p, log in enumerate(self._broker.logs) if log.owner is None][: size - len(self._owned)]
        if not free:
            return
        logs = [self._broker.logs[partition] for partition in free]
        for log in logs:
            log.owner = self
        try:
            await self._listener.on_assigned(free, [p for p in free if self._broker.logs[p].fresh])
        except BaseException:
            for log in logs:
                log.owner = None
            raise
        self._owned += free
        for partition, log in zip(free, logs, strict=True):
            log.fresh, log.handed_out = False, 0
            if log.records:
                self.notify(partition)

    def _give_up(self, partitions: Sequence[int]) -> None:
        self._listener.on_revoked(partitions)
        for partition in partitions:
            self._owned.remove(partition)
            self._waiting.pop(partition, None)
            self._broker.logs[partition].owner = None
        self._broker.wake_readers()

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Forget records up to these offsets, but none that was not handed out since its partition was taken."""
        for partition, offset in positions.items():
            log = self._broker.logs[partition]
            while log.owner is self and log.handed_out and log.records[0].offset <= offset:
                log.records.popleft()
                log.handed_out -= 1
                self._broker.depth -= 1

    async def close(self) -> None:
        """Give up all partitions; what is not committed waits for their next owner."""
        self._broker.readers.pop(self._name, None)
        self._give_up(list(self._owned))
