"""The reading side of the log in Redis Streams: XREAD from cursors of its own over all partitions it owns."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from app.brokers.base import OwnershipListener, Record, Subscription
from app.brokers.streams_keys import stream_key, to_id, to_ms, to_offset
from app.brokers.streams_leases import Leases, away
from app.errors import Busy
from app.lifecycle import Supervisor
from app.storage.redis import ERRORS, Line, Redis

BLOCK_S = 3.0
"""An idle reader asks again this often, which tells it of a connection that died without a sign."""


class StreamsSubscription(Subscription):
    """One reader. A consumer group would hand new entries to a process that sleeps; so positions are kept, but nobody reads by them."""

    def __init__(
        self,
        redis: Redis,
        supervisor: Supervisor,
        listener: OwnershipListener,
        partitions: int,
        name: str,
        *,
        lease_s: float,
        renew_s: float,
        timeout_s: float,
    ) -> None:
        self._line = Line(redis)
        self._leases = Leases(redis, partitions, name, self._on_renewed, lease_s=lease_s, renew_s=renew_s)
        self._supervisor = supervisor
        self._listener = listener
        self._timeout_s = timeout_s
        self._partition_of = {stream_key(partition).encode(): partition for partition in range(partitions)}
        self._cursors: dict[int, int] = {}
        """The last offset handed out, by partition owned; whose turn is next stands first."""
        self._taken_at: dict[int, int] = {}
        """The position when it was taken, by partition."""
        self._changed = asyncio.Event()
        self._waiting: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Register. Raises Busy while Redis is away."""
        await self._leases.renew()
        self._changed.set()
        self._task = self._supervisor.spawn(self._leases.run(), "log_leases")

    async def fetch(self, max_records: int) -> list[Record]:
        """XREAD; cursors move only when records are returned, so a call may be cancelled anywhere."""
        while True:
            if self._leases.error is not None:
                raise away(self._leases.error)
            if self._leases.lapsed:
                # This process slept.
                self._drop(list(self._cursors))
                await self._leases.renew()
                self._changed.set()
            if self._changed.is_set():
                await self._settle()
            records = await self._collect(max_records)
            # Meanwhile partitions may have gone; nobody waits between this and the return.
            last = {record.partition: record.offset for record in records}
            if not self._cursors.keys() >= last.keys():
                records = [record for record in records if record.partition in self._cursors]
            if records and not self._leases.lapsed:
                for partition in last.keys() & self._cursors.keys():
                    del self._cursors[partition]
                    self._cursors[partition] = last[partition]
                return records

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Move positions of partitions that are owned here and in Redis, to what was handed out since they were taken."""
        owned = {
            p: at for p, at in positions.items() if p in self._cursors and self._taken_at[p] < at <= self._cursors[p]
        }
        if owned:
            self._drop(await self._leases.commit(owned))

    async def close(self) -> None:
        """Leave the readers; when Redis is away the registration ends by itself."""
        if self._task is not None:
            await self._supervisor.end(self._task, self._timeout_s)
        self._drop(list(self._cursors))
        await self._line.close()
        with suppress(Busy):
            await self._leases.leave()

    async def _settle(self) -> None:
        """Give up what is beyond the share, take what is free within it."""
        self._changed.clear()
        try:
            plan = self._leases.plan(list(self._cursors))
            if plan.give_up:
                self._drop(plan.give_up)
                await self._leases.release(plan.give_up)
            if plan.take:
                await self._take(plan.take)
        except BaseException:
            self._changed.set()
            raise

    async def _take(self, partitions: Sequence[int]) -> None:
        taken = await self._leases.take(partitions)
        if not taken:
            return
        await self._listener.on_assigned(list(taken), [p for p, position in taken.items() if position is None])
        confirmed: list[int] = []
        try:
            confirmed = await self._leases.confirm(taken)
        finally:
            if gone := [partition for partition in taken if partition not in confirmed]:
                self._listener.on_revoked(gone)
        self._taken_at |= {partition: taken[partition] or 0 for partition in confirmed}
        self._cursors |= {partition: self._taken_at[partition] for partition in confirmed}

    def _on_renewed(self) -> None:
        """Told after each renewal, and each that failed."""
        if self._leases.lapsed:
            self._drop(list(self._cursors))
        else:
            self._drop([partition for partition in self._cursors if not self._leases.owns(partition)])
        if self._leases.error is not None or self._leases.plan(list(self._cursors)):
            self._changed.set()
            if self._waiting is not None and not self._waiting.expired():
                self._waiting.reschedule(asyncio.get_running_loop().time())

    def _drop(self, partitions: Sequence[int]) -> None:
        gone = [partition for partition in partitions if self._cursors.pop(partition, None) is not None]
        if gone:
            self._listener.on_revoked(gone)

    async def _collect(self, max_records: int) -> list[Record]:
        """Wait for records, then take what there is. Empty when something changed first."""
        cursors = dict(self._cursors)
        records, more = await self._wait(cursors, max_records)
        while more and len(records) < max_records:
            more = await self._read(more, cursors, max_records, records)
        return records

    async def _wait(self, cursors: dict[int, int], max_records: int) -> tuple[list[Record], list[int]]:
        records: list[Record] = []
        more: list[int] = []
        try:
            async with asyncio.timeout(None) as self._waiting:
                if cursors:
                    more = await self._read(list(cursors), cursors, max_records, records, block_s=BLOCK_S)
                else:
                    await self._changed.wait()
        except TimeoutError:
            pass  # Woken up, because something changed.
        finally:
            self._waiting = None
        return records, more

    async def _read(
        self,
        partitions: Sequence[int],
        cursors: dict[int, int],
        max_records: int,
        records: list[Record],
        *,
        block_s: float = 0,
    ) -> list[int]:
        """Add to `records` in even parts, and move `cursors`. Answers the partitions that have more."""
        count = -(-(max_records - len(records)) // len(partitions))
        keys = [stream_key(partition) for partition in partitions]
        ids = [to_id(cursors[partition]) for partition in partitions]
        block = ("BLOCK", round(block_s * 1000)) if block_s else ()
        command = ("XREAD", "COUNT", count, *block, "STREAMS", *keys, *ids)
        more = []
        for key, entries in await self._call(command, block_s) or ():
            partition = self._partition_of[key]
            if entries[0][1][0] == b"b" and cursors[partition]:
                # Another log than the one the cursor is of. The next renewal takes it.
                self._drop([partition])
                continue
            if len(entries) == count:
                more.append(partition)
            for entry_id, (_, value) in entries[: max_records - len(records)]:
                offset = to_offset(entry_id)
                records.append(Record(partition, offset, value, to_ms(offset)))
                cursors[partition] = offset
        return more

    async def _call(
        self, command: tuple[object, ...], block_s: float
    ) -> list[tuple[bytes, list[tuple[bytes, list[bytes]]]]] | None:
        try:
            async with asyncio.timeout(block_s + self._timeout_s):
                await self._line.open()
                await self._line.send([command])
                return await self._line.reply()  # type: ignore[no-any-return]  # as Redis documents XREAD
        except ERRORS as error:
            await self._line.close()
            raise away(error) from error
        except asyncio.CancelledError:
            # Its answer would meet the next question.
            await self._line.close()
            raise
