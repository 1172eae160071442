"""Tells Redis which users are connected here: who came or went within a moment in one write, the others again before they expire."""

import asyncio
import random
from collections.abc import Callable, Sequence
from itertools import islice
from time import monotonic
from typing import Protocol

import structlog

from app.errors import Busy
from app.modules.presence.routes import UserRoutes
from app.web.gateway.connection import Connection
from app.web.gateway.watcher import Watcher

log = structlog.get_logger(__name__)

LINGER_S = 0.02
"""Who comes and goes within it shares a write, and a page that is loaded again is mostly no change at all."""
TICK_S = 1.0
"""Renewals are looked for this often: of 10,000 users a few hundred each time."""
USERS_PER_WRITE = 500
"""A write keeps Redis busy for some milliseconds."""
RETRY_S = 0.5
"""Redis is away; whatever changes meanwhile is written when it is back, once per user."""


class Presence(Protocol):
    """Who must know which users are connected."""

    async def write(self, here: Sequence[int], left: Sequence[int]) -> None:
        """Users are connected here, and others are nowhere any more. Raises Busy: say it again."""


class LocalUsers(Watcher):
    """A connection never waits for this. What is written is what is true at the moment of writing, so changes need no order."""

    def __init__(self, routes: UserRoutes, presence: Presence | None, *, renew_s: float) -> None:
        """`presence` hears of everything that was written."""
        self._routes = routes
        self._presence = presence
        self._renew_s = renew_s
        self._connections: dict[int, int] = {}
        """User → connections here."""
        self._due: dict[int, float] = {}
        """User → when to renew, by the monotonic clock; about rising."""
        self._changed: dict[int, None] = {}
        self._wake_up = asyncio.Event()
        self._writing = asyncio.Lock()
        self._away = False
        self.elsewhere: Callable[[Sequence[int]], None] = lambda _: None
        """Told of users who are connected to other nodes too."""

    def came(self, connection: Connection) -> None:
        """Write the user soon, if it is their first connection."""
        user_id = connection.principal.user_id
        self._connections[user_id] = self._connections.get(user_id, 0) + 1
        if self._connections[user_id] == 1:
            self._change(user_id)

    def went(self, connection: Connection) -> None:
        """Remove the user soon, if it was their last connection."""
        user_id = connection.principal.user_id
        self._connections[user_id] -= 1
        if not self._connections[user_id]:
            del self._connections[user_id]
            self._due.pop(user_id, None)
            self._change(user_id)

    def _change(self, user_id: int) -> None:
        self._changed[user_id] = None
        self._wake_up.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wake_up.wait()
                await asyncio.sleep(LINGER_S)
            except TimeoutError:
                pass
            self._wake_up.clear()
            try:
                await self.write_changes()
                await self._renew()
            except Busy as error:
                if not self._away:
                    log.warning("routes_not_written", error=str(error.__cause__))
                self._away = True
                self._wake_up.set()
                await asyncio.sleep(RETRY_S)
            else:
                self._away = False

    async def write_changes(self) -> None:
        """Everything that changed until now; at shutdown, too. Raises Busy when Redis is away; what was not written is kept."""
        async with self._writing:
            for _ in range(0, len(self._changed), USERS_PER_WRITE):
                await self._write(self._take())

    def _take(self) -> list[int]:
        taken = list(islice(self._changed, USERS_PER_WRITE))
        for user_id in taken:
            del self._changed[user_id]
        return taken

    async def _renew(self) -> None:
        now = monotonic()
        async with self._writing:
            while due := [user_id for user_id, at in islice(self._due.items(), USERS_PER_WRITE) if at <= now]:
                await self._write(due)

    async def _write(self, users: Sequence[int]) -> None:
        here = [user_id for user_id in users if user_id in self._connections]
        gone = [user_id for user_id in users if user_id not in self._connections]
        try:
            others, left = await self._routes.write(here, gone)
            if self._presence is not None:
                await self._presence.write(here, [user_id for user_id, count in left.items() if not count])
        except BaseException:
            self._changed.update(dict.fromkeys(gone))
            self._changed.update(dict.fromkeys(user_id for user_id in here if user_id not in self._due))
            raise
        now = monotonic()
        for user_id in here:
            self._due.pop(user_id, None)
            if user_id in self._connections:
                # Spread, so that those who came in one storm are not renewed in one.
                self._due[user_id] = now + self._renew_s * random.uniform(0.8, 1.0)  # noqa: S311 - jitter, not a secret
        self.elsewhere([user_id for user_id, count in others.items() if count])
