"""The log in this process's memory, for `role = all`.

Survival: nothing un-acked survives the process. Senders of lost input got no answer and send again with the same `client_msg_id`.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence

from app.brokers.base import Broker, OwnershipListener, Record, Subscription
from app.errors import Busy

# Asked to come back after about two batches' time.
FULL_RETRY_MS = 200


class MemoryBroker(Broker):
    """Partitions as deques; bounded by `max_records` un-committed records in all. One subscription owns every partition."""

    name = "memory"

    def __init__(self, partitions: int, max_records: int) -> None:
        self.partitions = partitions
        self._max_records = max_records
        self._logs: list[deque[Record]] = [deque() for _ in range(partitions)]
        self._next = [0] * partitions
        self._depth = 0
        self._subscription: MemorySubscription | None = None

    async def start(self) -> None:
        """Nothing to connect to."""

    async def append(self, partition: int, values: Sequence[bytes]) -> None:
        """Append; held until committed or the process ends. Raises Busy when full: nothing of `values` is appended then."""
        if self._depth + len(values) > self._max_records:
            raise Busy("too many messages are waiting to be stored; try again shortly", retry_after_ms=FULL_RETRY_MS)
        log, offset = self._logs[partition], self._next[partition]
        for value in values:
            log.append(Record(partition, offset, value))
            offset += 1
        self._next[partition] = offset
        self._depth += len(values)
        if self._subscription is not None:
            self._subscription.notify(partition)

    async def subscribe(self, listener: OwnershipListener) -> Subscription:
        """Own all partitions. Raises RuntimeError while another subscription is open."""
        if self._subscription is not None:
            raise RuntimeError("the memory broker has one consumer at a time")
        await listener.on_assigned(range(self.partitions))
        self._subscription = MemorySubscription(self, self._logs, listener)
        return self._subscription

    def depth(self) -> int:
        """Un-committed records."""
        return self._depth

    async def stop(self) -> None:
        """Nothing to disconnect from."""

    def committed(self, count: int) -> None:
        """`count` records left the log; called by the subscription."""
        self._depth -= count

    def closed(self) -> None:
        """The subscription is gone; called by it."""
        self._subscription = None


class MemorySubscription(Subscription):
    """Reads all partitions of a MemoryBroker, those with new records in turn."""

    def __init__(self, broker: MemoryBroker, logs: list[deque[Record]], listener: OwnershipListener) -> None:
        self._broker = broker
        self._logs = logs
        self._listener = listener
        # How many records at the head of each log are handed out and not committed.
        self._handed_out = [0] * len(logs)
        self._waiting: dict[int, None] = {index: None for index, log in enumerate(logs) if log}
        self._wake_up = asyncio.Event()
        if self._waiting:
            self._wake_up.set()

    def notify(self, partition: int) -> None:
        """There is something new in `partition`."""
        self._waiting[partition] = None
        self._wake_up.set()

    async def fetch(self, max_records: int, linger_s: float) -> list[Record]:
        """Wait for the first record, then collect for `linger_s` unless a full batch is there at once."""
        while not self._waiting:
            self._wake_up.clear()
            await self._wake_up.wait()
        if linger_s > 0 and self._available() < max_records:
            await asyncio.sleep(linger_s)
        records: list[Record] = []
        for partition in list(self._waiting):
            log, start = self._logs[partition], self._handed_out[partition]
            taken = min(len(log) - start, max_records - len(records))
            records.extend(log[index] for index in range(start, start + taken))
            self._handed_out[partition] += taken
            # Re-inserted at the end when something is left: no partition starves the others.
            del self._waiting[partition]
            if start + taken < len(log):
                self._waiting[partition] = None
            if len(records) == max_records:
                break
        return records

    def _available(self) -> int:
        return sum(len(self._logs[partition]) - self._handed_out[partition] for partition in self._waiting)

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Forget records up to these offsets."""
        count = 0
        for partition, offset in positions.items():
            log = self._logs[partition]
            while log and log[0].offset <= offset:
                log.popleft()
                self._handed_out[partition] -= 1
                count += 1
        self._broker.committed(count)

    async def close(self) -> None:
        """Give up all partitions; what is not committed waits for the next subscription."""
        try:
            await self._listener.on_revoked(range(len(self._logs)))
        finally:
            self._broker.closed()
