"""Whose turn it is: searches must leave the database and the event loop to those who chat."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from weakref import WeakValueDictionary

from app.errors import Busy, RateLimited

RETRY_AFTER_MS = 1000
LOOP_MAX_S = 0.005
"""So long a search may keep the event loop; others wait for it no longer than for a small request."""


class _Searcher:
    """A user; their searches wait for each other, so that the others wait for one of them only."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.there = 0


class Turns:
    """At most `at_once` searches in this process, of each user one; the others wait in the order they came.

    At most `waiting_max` wait, `waiting_per_user` of a user who has one under way or the next turn.
    """

    def __init__(self, at_once: int, waiting_max: int, waiting_per_user: int) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._room = at_once + waiting_max
        self._room_of_user = 1 + waiting_per_user
        self._there = 0
        self._searchers: WeakValueDictionary[int, _Searcher] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, user_id: int) -> AsyncIterator[None]:
        """Wait for a turn and hold it. Raises RateLimited when too many of the user wait, Busy when too many of all."""
        searcher = self._searchers.get(user_id)
        if searcher is None:
            searcher = self._searchers[user_id] = _Searcher()
        if searcher.there >= self._room_of_user:
            raise RateLimited("wait for the answers to your other searches", retry_after_ms=RETRY_AFTER_MS)
        if self._there >= self._room:
            raise Busy("too many searches at once; try again", retry_after_ms=RETRY_AFTER_MS)
        self._there += 1
        searcher.there += 1
        try:
            async with searcher.turn, self._slots:
                yield
        finally:
            searcher.there -= 1
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
