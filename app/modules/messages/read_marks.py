"""Read marks are coalesced per member and written behind; `ok` to a `message.read` means accepted."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from app.errors import Busy
from app.metrics import Metrics
from app.modules.messages.repository import MessageRepository
from app.storage.retry import FAILED, Retries

WAIT_MAX_S = 5.0
"""Between two tries while PostgreSQL is away."""
Moved = tuple[int, int, int]
"""(group_id, user_id, seq) of a read mark that moved."""


class ReadMarks:
    """At most `pending_max` marks wait; they survive an outage of PostgreSQL, not the end of the process without `flush`."""

    def __init__(
        self,
        repository: MessageRepository,
        on_moved: Callable[[Sequence[Moved]], Awaitable[None]],
        metrics: Metrics,
        *,
        flush_s: float,
        pending_max: int,
        batch_max: int,
    ) -> None:
        self._repository = repository
        self._on_moved = on_moved
        self._metrics = metrics
        self._flush_s = flush_s
        self._pending_max = pending_max
        self._batch_max = batch_max
        self._pending: dict[tuple[int, int], int] = {}

    def mark(self, user_id: int, group_id: int, seq: int) -> None:
        """Accept a mark. Raises Busy when too many wait. Marks of groups the user is not in change nothing."""
        key = (group_id, user_id)
        known = self._pending.get(key)
        if known is None and len(self._pending) >= self._pending_max:
            raise Busy("too many read marks are waiting; try again shortly", retry_after_ms=int(self._flush_s * 2000))
        if known is None or seq > known:
            self._pending[key] = seq

    async def write_now(self, user_id: int, group_id: int, seq: int) -> None:
        """Write one mark before returning. Raises Busy when the database is away."""
        await self._written(await self._repository.write_read_marks({(group_id, user_id): seq}))

    async def run(self) -> None:
        """Write what is pending every `flush_s` until cancelled."""
        retries = Retries("read_marks_not_written", max_s=WAIT_MAX_S)
        while True:
            await asyncio.sleep(self._flush_s)
            self._metrics.read_marks_pending.set(len(self._pending))
            try:
                await self.flush()
            except FAILED as error:
                await retries.wait(error, pending=len(self._pending))
            else:
                retries.over()

    async def flush(self) -> None:
        """Write everything that is pending. Raises Busy and keeps the rest when the database is away."""
        while self._pending:
            batch = {key: self._pending[key] for key in list(self._pending)[: self._batch_max]}
            moved = await self._repository.write_read_marks(batch)
            for key, seq in batch.items():
                # A newer mark that came during the write stays for the next one.
                if self._pending.get(key) == seq:
                    del self._pending[key]
            await self._written(moved)

    async def _written(self, moved: Sequence[Moved]) -> None:
        if moved:
            await self._on_moved(moved)
