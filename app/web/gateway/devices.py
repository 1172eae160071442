"""The policy `gateway.devices = "newest"`: of all connections of a user, on all gateways, the newest one stays.

Every connection gets a stamp, and each gateway tells the others the stamps of its own. Of two connections the one with the lower
(stamp, process) ends, wherever that is noticed, so that all decide the same. The stamps are a hybrid clock (Kulkarni et al., "Logical
Physical Clocks", 2014): the time of the process, but never below what it has heard of, so that a clock that is behind does not make a new
connection look old.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice
from time import time_ns

from app.delivery.publisher import Publisher
from app.protocol import frames
from app.protocol.magpie_pb2 import Blob, Newest
from app.web.gateway.connection import Connection
from app.web.gateway.watcher import Watcher

LINGER_S = 0.02
"""Who connects within it is told of in one blob."""
USERS_PER_BLOB = 5000
"""About 25 bytes each."""
RETRY_S = 0.5


class NewestOnly(Watcher):
    """Remembers one connection per local user; a lost blob is made good by `tell_again`."""

    def __init__(self, publisher: Publisher, close: Callable[[Connection, int, str], None], process: str) -> None:
        """`process` is what the publisher calls itself: it settles equal stamps."""
        self._publisher = publisher
        self._close = close
        self._process = process
        self._newest: dict[int, tuple[int, Connection]] = {}
        self._clock = 0
        self._to_tell: dict[int, None] = {}
        self._wake_up = asyncio.Event()

    def came(self, connection: Connection) -> None:
        """Newer than everything that is known here."""
        user_id = connection.principal.user_id
        self._clock = max(time_ns() // 1000, self._clock + 1)
        older = self._newest.get(user_id)
        self._newest[user_id] = self._clock, connection
        if older is not None:
            self._kick(older[1])
        self.tell_again([user_id])

    def went(self, connection: Connection) -> None:
        """Forget it, if it was the newest one here."""
        user_id = connection.principal.user_id
        newest = self._newest.get(user_id)
        if newest is not None and newest[1] is connection:
            del self._newest[user_id]

    def on_control(self, blob: Blob) -> None:
        """What other processes have: older ones here end, and who has an older one is told of ours."""
        for theirs in blob.newest:
            self._clock = max(self._clock, theirs.stamp)
            ours = self._newest.get(theirs.user_id)
            if ours is None or blob.publisher == self._process:
                continue
            if (ours[0], self._process) < (theirs.stamp, blob.publisher):
                del self._newest[theirs.user_id]
                self._kick(ours[1])
            else:
                self.tell_again([theirs.user_id])

    def tell_again(self, user_ids: Sequence[int]) -> None:
        """Tell the other gateways what is the newest of these users here."""
        self._to_tell.update(dict.fromkeys(user_ids))
        if self._to_tell:
            self._wake_up.set()

    def _kick(self, connection: Connection) -> None:
        connection.send(frames.event("kick", {"reason": frames.REPLACED}))
        self._close(connection, frames.CLOSE_KICKED, frames.REPLACED)

    async def run(self) -> None:
        """Tell until cancelled; while delivery is away again and again, once per user."""
        while True:
            await self._wake_up.wait()
            await asyncio.sleep(LINGER_S)
            self._wake_up.clear()
            while self._to_tell:
                users = list(islice(self._to_tell, USERS_PER_BLOB))
                for user_id in users:
                    del self._to_tell[user_id]
                newest = [Newest(user_id=u, stamp=self._newest[u][0]) for u in users if u in self._newest]
                if newest and not await self._publisher.control(Blob(newest=newest)):
                    self.tell_again(users)
                    await asyncio.sleep(RETRY_S)
