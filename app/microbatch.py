"""Many concurrent single calls become few calls for many: one query or one pipeline instead of one round trip each."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

from app.errors import Busy

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

RETRY_AFTER_MS = 500
"""A full batcher is a load peak or a store that hangs; sooner would only add to it."""


class MicroBatcher(Generic[K, V]):
    """Collects keys for `linger_s` seconds, or until there are `max_batch`, and loads them in one call.

    While all of `max_parallel` loads are under way, keys go on collecting and the next load takes up to `max_batch` of them at
    once. A load always begins after the call to `get` that it serves, so its answer is never older than the question: callers of
    the same key share a load that is still to begin, never one under way.
    """

    def __init__(
        self,
        load: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]],
        *,
        max_batch: int,
        linger_s: float,
        max_waiting: int,
        max_parallel: int = 2,
    ) -> None:
        self._load = load
        self._max_batch = max_batch
        self._linger_s = linger_s
        self._max_waiting = max_waiting
        self._max_parallel = max_parallel
        self._next: dict[K, set[asyncio.Future[V]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loads: set[asyncio.Task[Mapping[K, V]]] = set()
        self._waiting = 0

    async def get(self, key: K) -> V:
        """The value of `key` from the next load.

        Raises Busy when `max_waiting` callers wait already, KeyError when the load leaves the key out, and whatever the load
        raises; its failure reaches every caller it was for. A cancelled caller does not disturb the others.
        """
        if self._waiting >= self._max_waiting:
            raise Busy("the server is busy; try again", retry_after_ms=RETRY_AFTER_MS)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[V] = loop.create_future()
        waiters = self._next.setdefault(key, set())
        waiters.add(waiter)
        self._waiting += 1
        try:
            if len(self._next) >= self._max_batch:
                self._start()
            elif self._timer is None:
                self._timer = loop.call_later(self._linger_s, self._start)
            return await waiter
        finally:
            self._waiting -= 1
            waiters.discard(waiter)
            if not waiters and self._next.get(key) is waiters:
                del self._next[key]

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._next and len(self._loads) < self._max_parallel:
            batch = {key: self._next.pop(key) for key in list(islice(self._next, self._max_batch))}
            # Not a background task: its callers wait for it, and its failure is theirs.
            task = asyncio.ensure_future(self._call(list(batch)))
            self._loads.add(task)
            task.add_done_callback(partial(self._finish, batch))

    async def _call(self, keys: Sequence[K]) -> Mapping[K, V]:
        return await self._load(keys)

    def _finish(self, batch: Mapping[K, set[asyncio.Future[V]]], task: asyncio.Task[Mapping[K, V]]) -> None:
        self._loads.discard(task)
        error = Busy("the server is stopping", retry_after_ms=RETRY_AFTER_MS) if task.cancelled() else task.exception()
        for key, waiters in batch.items():
            for waiter in waiters:
                if waiter.done():
                    continue
                if error is not None:
                    waiter.set_exception(error)
                    # Retrieved: a caller cancelled at this very moment is no "exception was never retrieved".
                    waiter.exception()
                elif key in task.result():
                    waiter.set_result(task.result()[key])
                else:
                    waiter.set_exception(KeyError(key))
                    waiter.exception()
        self._start()
