"""Tells people who share a small group that somebody came online or went, and writes down when. Never more than so many a second."""

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from app.delivery.publisher import Publisher
from app.metrics import Metrics
from app.modules.presence.models import Change, Members, minute_of
from app.modules.presence.online import OVERDUE_MS, OnlineUsers
from app.modules.presence.repository import LastSeenRepository
from app.modules.presence.routes import UserRoutes
from app.protocol.magpie_pb2 import Blob, Presence
from app.storage.retry import FAILED, Retries

TICK_S = 0.25
"""What changed within it is one query and about one blob."""
CLAIM_S = 10.0
"""Who was taken to be looked at by a gateway that died meanwhile is looked at by another after this time."""
LOOK_MAX = 500
GROUPS_PER_BLOB = 10_000
"""About 10 bytes each: far below the 256 KiB that a blob may have."""
WAITING_MAX = 50_000
"""Users with news; the oldest are forgotten beyond it. Their state is right wherever it is read."""
RETRY_MAX_S = 5.0
"""Longest wait for a store that fails."""


class Announcer:
    """One in each gateway; what it tells is about users of any gateway."""

    def __init__(
        self,
        online: OnlineUsers,
        routes: UserRoutes,
        members: Members,
        last_seen: LastSeenRepository,
        publisher: Publisher,
        metrics: Metrics,
        *,
        small_group_members: int,
        sweep_s: float,
        per_second: int,
    ) -> None:
        self._online = online
        self._routes = routes
        self._members = members
        self._last_seen = last_seen
        self._publisher = publisher
        self._metrics = metrics
        self._small = small_group_members
        self._sweep_s = sweep_s
        self._per_tick = max(1, round(per_second * TICK_S))
        self._at_once = self._per_tick
        self._waiting: dict[int, Change] = {}
        self._wake_up = asyncio.Event()

    async def write(self, here: Sequence[int], left: Sequence[int]) -> None:
        """Users are connected here, and others are nowhere any more. Raises Busy: say it again."""
        ts, came = await self._online.write(here, left)
        self._add(dict.fromkeys(came, Change(online=True, ts=ts, seen=ts)))

    def _add(self, changes: Mapping[int, Change]) -> None:
        for user_id, change in changes.items():
            known = self._waiting.pop(user_id, None)
            self._waiting[user_id] = change if known is None or known.ts <= change.ts else known
        for user_id in list(islice(self._waiting, max(0, len(self._waiting) - WAITING_MAX))):
            del self._waiting[user_id]
            self._metrics.events_shed.inc()
        self._metrics.presence_waiting.set(len(self._waiting))
        if self._waiting:
            self._wake_up.set()

    async def sweep(self) -> None:
        """Look at who is due, until cancelled: who has no connection anywhere is offline."""
        retries = Retries("presence_not_looked_at", max_s=RETRY_MAX_S)
        while True:
            await asyncio.sleep(self._sweep_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
            try:
                while await self._look():
                    pass
            except FAILED as error:
                # Whatever was taken is due again soon.
                await retries.wait(error)
            else:
                retries.over()

    async def _look(self) -> bool:
        """True: there may be more."""
        claim, due = await self._online.take_due(CLAIM_S, LOOK_MAX)
        if not due:
            return False
        nodes = await self._routes.nodes_of(list(due))
        gone = [user_id for user_id in due if not nodes[user_id]]
        if gone:
            # First: should this process end here, the next one finds them due again.
            await self._last_seen.move({user_id: minute_of(due[user_id]) for user_id in gone})
            ts, offline = await self._online.remove(claim, gone)
            # Nobody could look for long, or Redis came back with old data: their gateways write them in a moment, those that live.
            self._add(
                {
                    user_id: Change(online=False, ts=ts, seen=min(ts, due[user_id]))
                    for user_id in offline
                    if ts - due[user_id] <= OVERDUE_MS
                }
            )
        return len(due) == LOOK_MAX

    async def run(self) -> None:
        """Tell until cancelled."""
        retries = Retries("presence_not_told", max_s=RETRY_MAX_S)
        while True:
            await self._wake_up.wait()
            await asyncio.sleep(TICK_S)
            taken = dict(islice(self._waiting.items(), self._at_once))
            for user_id in taken:
                del self._waiting[user_id]
            try:
                await self._tell(taken)
            except FAILED as error:
                # They may be too many for one statement. Behind the others, in case one of them is the reason.
                self._at_once = max(1, len(taken) // 2)
                self._add(taken)
                await retries.wait(error, users=len(taken))
            else:
                self._at_once = min(2 * self._at_once, self._per_tick)
                retries.over()
            self._metrics.presence_waiting.set(len(self._waiting))
            if not self._waiting:
                self._wake_up.clear()

    async def _tell(self, changes: Mapping[int, Change]) -> None:
        groups = await self._members.small_groups_of(list(changes), self._small)
        if came := {user_id: minute_of(change.seen) for user_id, change in changes.items() if change.online}:
            await self._last_seen.move(came)
        for blob in _blobs(changes, groups):
            # A lost one is not told again: what is read is right, and whoever opens the group reads.
            await self._publisher.control(blob)


def _told(user_id: int, change: Change, group_ids: Sequence[int]) -> Presence:
    seen = 0 if change.online else minute_of(change.seen)
    return Presence(user_id=user_id, online=change.online, ts=change.ts, last_seen=seen, group_ids=group_ids)


def _blobs(changes: Mapping[int, Change], groups: Mapping[int, Sequence[int]]) -> Iterator[Blob]:
    blob, size = Blob(), 0
    for user_id, change in changes.items():
        shared = groups.get(user_id)
        if not shared:
            continue
        blob.presence.append(_told(user_id, change, shared))
        size += len(shared)
        if size >= GROUPS_PER_BLOB:
            yield blob
            blob, size = Blob(), 0
    if size:
        yield blob
