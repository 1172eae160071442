"""Snowflake ids: 41 bits of milliseconds since 2026-01-01 UTC, 10 bits of worker id, 12 bits of sequence, in an int64.

The format is Twitter's (https://github.com/twitter-archive/snowflake/tree/snowflake-2010) with an epoch of our own. Two rules make
the ids unique, however clocks run: at any time a worker id has one holder, and a holder stamps only milliseconds of its own stretch
`[from_ms, until_ms)`, which begins where the stretch of the one before it ended. No trust in synchronous clocks is needed.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from app.errors import Busy
from app.lifecycle import Readiness

log = structlog.get_logger(__name__)

EPOCH_MS = 1_767_225_600_000
"""2026-01-01 00:00 UTC in ms since 1970."""
WORKER_BITS, SEQUENCE_BITS = 10, 12
WORKERS = 1 << WORKER_BITS
END_MS = EPOCH_MS + (1 << 41)
"""In 2095 the 41 bits are used up."""
MAX_AHEAD_MS = 10
"""How far ids may run ahead of the clock when a millisecond's 4,096 are used up: 40,960 at once, far above any batch of ours."""
RETRY_S = 1.0
"""Between attempts to get or renew the lease while it fails or ids are refused."""
CHECK_S = 0.25
"""How soon readiness follows the clock and the lease."""


def timestamp_ms(snowflake: int) -> int:
    """When an id was stamped, in ms since 1970."""
    return (snowflake >> (WORKER_BITS + SEQUENCE_BITS)) + EPOCH_MS


def wall_ms() -> int:
    """The system's clock in ms since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to stamp ids of one worker."""

    worker_id: int
    from_ms: int
    """First millisecond since 1970 that may be stamped: the end of the stretch of the holder before."""
    until_ms: int
    """First millisecond that may not be stamped: `not_after` in the database."""
    deadline_s: float
    """On the monotonic clock; ends the lease even when the system's clock stands or runs backwards."""


class Snowflake:
    """Stamps rising ids for as long as it has a lease and a sane clock."""

    def __init__(
        self,
        *,
        max_backward_ms: int,
        clock_ms: Callable[[], int] = wall_ms,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_backward_ms = max_backward_ms
        self._clock_ms = clock_ms
        self._monotonic_s = monotonic_s
        self._newest_ms = 0
        """The newest clock reading that was stamped with."""
        self._last = -1
        """Position of the last id: ms since EPOCH_MS and sequence, without the worker id."""
        self.lease: Lease | None = None
        """Set by SnowflakeLease."""

    def stamp(self, n: int) -> list[int]:
        """`n` rising ids, higher than all before. Raises Busy (and stamps none) when that is not possible now.

        A clock up to `max_backward_ms` back goes on where it was. A millisecond whose ids are used up borrows from the next ones.
        """
        if n < 1:
            return []
        now_ms = self._clock_ms()
        lease = self.lease
        if lease is None or self._refusal(lease, now_ms) is not None:
            raise Busy("the server cannot give out ids now; try again", retry_after_ms=1000)
        first = max(self._last + 1, (now_ms - EPOCH_MS) << SEQUENCE_BITS)
        end = first + n
        last_ms = ((end - 1) >> SEQUENCE_BITS) + EPOCH_MS
        newest_ms = max(self._newest_ms, now_ms)
        if last_ms >= min(lease.until_ms, newest_ms + MAX_AHEAD_MS, END_MS):
            raise Busy("the server gives out too many ids at once; try again", retry_after_ms=MAX_AHEAD_MS)
        self._last, self._newest_ms = end - 1, newest_ms
        worker, sequence_mask = lease.worker_id << SEQUENCE_BITS, (1 << SEQUENCE_BITS) - 1
        return [((at & ~sequence_mask) << WORKER_BITS) | worker | (at & sequence_mask) for at in range(first, end)]

    def timestamp_ms(self, snowflake: int) -> int:
        """When an id was stamped, in ms since 1970."""
        return timestamp_ms(snowflake)

    @property
    def ready(self) -> bool:
        """Whether `stamp` would succeed now."""
        return self.reason is None

    @property
    def reason(self) -> str | None:
        """Why ids are refused now, for operators; None when they are not."""
        if self.lease is None:
            return "no worker id is leased"
        return self._refusal(self.lease, self._clock_ms())

    @property
    def unused_ms(self) -> int:
        """The first millisecond since 1970 that no id was stamped with."""
        return (self._last >> SEQUENCE_BITS) + 1 + EPOCH_MS

    def _refusal(self, lease: Lease, now_ms: int) -> str | None:
        back_ms = self._newest_ms - now_ms
        if self._monotonic_s() >= lease.deadline_s:
            return f"the lease of worker id {lease.worker_id} ran out"
        if back_ms > self._max_backward_ms:
            return f"the clock went back by {back_ms} ms; ids go on when it has caught up"
        if now_ms < max(lease.from_ms, EPOCH_MS):
            return f"the clock is {lease.from_ms - now_ms} ms before the end of the last holder of worker id {lease.worker_id}"
        if now_ms >= lease.until_ms:
            return (
                f"the clock is {now_ms - lease.until_ms} ms after the end of the lease; compare it with the database's"
            )
        return None


@dataclass(frozen=True, slots=True)
class Granted:
    """What the database granted; times in ms since 1970."""

    worker_id: int
    from_ms: int
    until_ms: int


class LeaseTable(Protocol):
    """The table of worker ids; `app/storage/worker_leases.py`. All methods raise Busy when the database is away."""

    async def take(self, holder: str, lease_s: float) -> Granted | None:
        """A worker id whose last lease has run out; None when there is none."""

    async def renew(self, worker_id: int, holder: str, lease_s: float) -> int | None:
        """The new `until_ms`, never lower than before; None when the lease is another's now."""

    async def release(self, worker_id: int, holder: str, until_ms: int) -> None:
        """End the lease at `until_ms` if that is earlier."""


class SnowflakeLease:
    """Keeps a worker id leased for `ids` and tells readiness when ids are refused. One object is one holder."""

    def __init__(
        self,
        table: LeaseTable,
        ids: Snowflake,
        readiness: Readiness,
        *,
        lease_s: float,
        renew_s: float,
        name: str = "",
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` says to people who the holder is; by default host and process id."""
        self._table = table
        self._ids = ids
        self._readiness = readiness
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._monotonic_s = monotonic_s
        # Unique: a process started again must not take the lease of its killed predecessor for its own.
        self._holder = f"{name or f'{socket.gethostname()}:{os.getpid()}'}:{secrets.token_hex(8)}"

    async def acquire(self) -> None:
        """Lease a worker id. Raises Busy when all are taken or the database is away."""
        asked_s = self._monotonic_s()
        granted = await self._table.take(self._holder, self._lease_s)
        if granted is None:
            raise Busy(
                f"all {WORKERS} worker ids are leased; stop processes that are not needed, or wait {self._lease_s:g} s"
                " for the leases of killed ones to run out",
                retry_after_ms=round(self._lease_s * 1000),
            )
        # The database granted it later than it was asked, so this deadline is on the safe side.
        self._ids.lease = Lease(granted.worker_id, granted.from_ms, granted.until_ms, asked_s + self._lease_s)
        log.info("worker_id_leased", worker_id=granted.worker_id)

    async def renew(self) -> None:
        """Renew the lease, or take another worker id when it was lost. Raises Busy as `acquire`."""
        lease = self._ids.lease
        if lease is not None:
            asked_s = self._monotonic_s()
            until_ms = await self._table.renew(lease.worker_id, self._holder, self._lease_s)
            if until_ms is not None:
                self._ids.lease = Lease(lease.worker_id, lease.from_ms, until_ms, asked_s + self._lease_s)
                return
            log.warning("worker_id_lost", worker_id=lease.worker_id)
            self._ids.lease = None
        await self.acquire()

    async def release(self) -> None:
        """Stamp no more and let a successor begin at once; for an orderly end. A database that is away lets the lease run out."""
        lease, self._ids.lease = self._ids.lease, None
        if lease is None:
            return
        try:
            async with asyncio.timeout(self._renew_s):
                await self._table.release(lease.worker_id, self._holder, max(lease.from_ms, self._ids.unused_ms))
        except (Busy, TimeoutError) as error:
            log.warning("worker_id_not_released", worker_id=lease.worker_id, reason=str(error))

    async def run(self) -> None:
        """Lease, renew and report until cancelled."""
        tried_s = float("-inf")
        failure: str | None = None
        while True:
            pause_s = RETRY_S if failure or not self._ids.ready else self._renew_s
            if self._monotonic_s() - tried_s >= min(pause_s, self._renew_s):
                tried_s = self._monotonic_s()
                failure = await self._try_renew()
            reason = self._ids.reason
            if reason is None:
                self._readiness.clear("ids")
            else:
                self._readiness.fail("ids", f"{reason} ({failure})" if failure else reason)
            await asyncio.sleep(min(CHECK_S, self._renew_s))

    async def _try_renew(self) -> str | None:
        """Why it failed, or None."""
        try:
            async with asyncio.timeout(self._lease_s):
                await self.renew()
        except Busy as busy:
            return busy.message
        except TimeoutError:
            return "the database does not answer"
        return None
