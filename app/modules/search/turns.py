"""Whose turn it is: searches must leave the database and the event loop to those who chat."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from weakref import WeakValueDictionary

from app.errors import Busy

RETRY_AFTER_MS = 1000
LOOP_MAX_S = 0.005
"""So long a search may keep the event loop; others wait for it no longer than for a small request."""


class Turns:
    """At most `at_once` searches in this process, of each user one; the others wait in the order they came, at most `waiting_max`."""

    def __init__(self, at_once: int, waiting_max: int) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._room = at_once + waiting_max
        self._there = 0
        self._of_user: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, user_id: int) -> AsyncIterator[None]:
        """Wait for a turn and hold it. Raises Busy when too many wait."""
        if self._there >= self._room:
            raise Busy("too many searches at once; try again", retry_after_ms=RETRY_AFTER_MS)
        lock = self._of_user.get(user_id)
        if lock is None:
            lock = self._of_user[user_id] = asyncio.Lock()
        self._there += 1
        try:
            async with lock, self._slots:
                yield
        finally:
            self._there -= 1


class Breaths:
    """Lets the event loop go on with others in the middle of long work."""

    def __init__(self, every_s: float = LOOP_MAX_S) -> None:
        self._every_s = every_s
        self._since = monotonic()

    async def take(self) -> None:
        """Call it after each piece of work."""
        if monotonic() - self._since >= self._every_s:
            await asyncio.sleep(0)
            self._since = monotonic()
