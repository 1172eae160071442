"""Presence on its last hop: who came or went, to people here who share a small group; how many are online, to who looks at a large one."""

import asyncio
from collections import deque
from collections.abc import Mapping
from itertools import islice
from time import monotonic
from typing import Protocol

from app.metrics import Metrics
from app.modules.presence.models import Members
from app.modules.presence.online import GroupCounts
from app.protocol import frames, wsframe
from app.protocol.magpie_pb2 import Blob, Presence
from app.storage.retry import FAILED, Retries
from app.web.gateway.bucket import LocalBucket
from app.web.gateway.connection import Connection
from app.web.gateway.group import LocalGroup
from app.web.gateway.watcher import Watcher

WAITING_MAX = 100_000
"""Groups of news that wait for their turn, about a megabyte; the oldest news are shed beyond it."""
STEPS_PER_TURN = 1000
"""Groups and connections that are looked at before everybody else gets a turn: a millisecond or two."""
HELD_MAX = 2000
"""News for groups whose members are being read; the oldest are shed beyond it."""
HELD_S = 5.0
LOOK_S = 0.1
GROUPS_PER_CALL = 500


class Groups(Protocol):
    """The hub, as far as presence needs it."""

    def local_groups(self) -> list[int]:
        """Ids of the groups with a connection here."""

    def group(self, group_id: int) -> LocalGroup | None:
        """A group with a connection here."""


class PresenceFanOut(Watcher):
    """Who looks at a group that is shared hears everything: at most one event for each of its few members.

    The others share a bounded number of frames a second, so that a storm of people who come and go costs no more than that.
    """

    def __init__(self, groups: Groups, metrics: Metrics, *, frames_per_second: int) -> None:
        self._groups = groups
        self._metrics = metrics
        self._frames = LocalBucket(frames_per_second, frames_per_second)
        self._news: deque[Presence] = deque()
        self._waiting = 0
        """Groups of all news."""
        self._wake_up = asyncio.Event()
        self._steps = 0
        self._held: deque[tuple[float, Presence]] = deque()

    def on_control(self, blob: Blob) -> None:
        """Whoever may know is told soon."""
        for presence in blob.presence:
            self._news.append(presence)
            self._waiting += len(presence.group_ids)
        while self._waiting > WAITING_MAX:
            self._waiting -= len(self._news.popleft().group_ids)
            self._metrics.events_shed.inc()
        if self._news:
            self._wake_up.set()

    async def run(self) -> None:
        """Tell what comes until cancelled."""
        while True:
            await self._wake_up.wait()
            self._wake_up.clear()
            await self.step()

    async def step(self) -> None:
        """Tell what has come."""
        while self._news:
            presence = self._news.popleft()
            self._waiting -= len(presence.group_ids)
            unsure = await self._tell(presence)
            if unsure:
                self._hold(monotonic() + HELD_S, _only(presence, unsure))

    async def _tell(self, presence: Presence) -> list[int]:
        """The groups for which it is too early: somebody who is told now may have just been removed."""
        unsure: list[int] = []
        shared = set(presence.group_ids)
        told: set[Connection] = set()
        frame = b""
        for group_id in presence.group_ids:
            if self._steps >= STEPS_PER_TURN:
                self._steps = 0
                await asyncio.sleep(0)
            self._steps += 1
            group = self._groups.group(group_id)
            if group is None:
                continue
            if group.stale or group.newest_version > group.access_version:
                unsure.append(group_id)
                continue
            frame = frame or wsframe.text(_event(presence))
            self._steps += len(group.connections)
            for connection in group.connections:
                if connection in told or connection.principal.user_id == presence.user_id:
                    continue
                told.add(connection)
                focused = connection.focus in shared
                if not ((focused or self._frames.take() == 0) and connection.push_event(frame, droppable=True)):
                    self._metrics.events_shed.inc()
        return unsure

    def _hold(self, until: float, presence: Presence) -> None:
        if len(self._held) >= HELD_MAX:
            self._held.popleft()
            self._metrics.events_shed.inc()
        self._held.append((until, presence))

    async def run_held(self) -> None:
        """Tell what was held as soon as the members are known, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for _ in range(len(self._held)):
                until, presence = self._held.popleft()
                unsure = await self._tell(presence)
                if unsure and monotonic() < until:
                    self._hold(until, _only(presence, unsure))
                elif unsure:
                    self._metrics.events_shed.inc()


class LargeGroups:
    """Says in Redis how many people of each large group are connected here, and tells who looks at one how many there are in all."""

    def __init__(
        self, groups: Groups, counts: GroupCounts, members: Members, *, small_group_members: int, interval_s: float
    ) -> None:
        self._groups = groups
        self._counts = counts
        self._members = members
        self._small = small_group_members
        self._interval_s = interval_s
        self._large: dict[int, tuple[int, bool]] = {}
        """Local group → (as of which access version, whether it is large)."""
        self._written: dict[int, int] = {}
        self._told: dict[int, int] = {}

    async def run(self) -> None:
        """Count until cancelled; while a store fails nobody is told."""
        retries = Retries("presence_not_counted", max_s=self._interval_s)
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.count()
            except FAILED as error:
                await retries.wait(error)
            else:
                retries.over()

    async def count(self) -> None:
        """One round over all local groups; of those that cannot be read as the last time. Raises Busy."""
        local = {group_id: group for group_id in self._groups.local_groups() if (group := self._groups.group(group_id))}
        failure: BaseException | None = None
        try:
            await self._learn(local)
        except FAILED as error:
            failure = error
        large = {group_id: group for group_id, group in local.items() if self._large.get(group_id, (0, False))[1]}
        counts = {group_id: 0 for group_id in self._written if group_id not in large}
        for group in large.values():
            counts[group.group_id] = len({connection.principal.user_id for connection in group.connections})
            # Ten thousand take a millisecond.
            await asyncio.sleep(0)
        while some := dict(islice(counts.items(), GROUPS_PER_CALL)):
            for group_id, online in (await self._counts.write(some)).items():
                self._push(group_id, online)
            for group_id, here in some.items():
                del counts[group_id]
                if here:
                    self._written[group_id] = here
                else:
                    self._written.pop(group_id, None)
                    self._told.pop(group_id, None)
        if failure is not None:
            raise failure

    async def _learn(self, local: Mapping[int, LocalGroup]) -> None:
        """Which are large, where that may have changed. Raises Busy and the errors of PostgreSQL."""
        self._large = {group_id: known for group_id, known in self._large.items() if group_id in local}
        unknown = [
            group_id
            for group_id, group in local.items()
            if group_id not in self._large or self._large[group_id][0] != group.newest_version
        ]
        for start in range(0, len(unknown), GROUPS_PER_CALL):
            some = unknown[start : start + GROUPS_PER_CALL]
            versions = {group_id: local[group_id].newest_version for group_id in some}
            found = await self._members.large_among(some, self._small)
            self._large |= {group_id: (version, group_id in found) for group_id, version in versions.items()}

    def _push(self, group_id: int, online: int) -> None:
        group = self._groups.group(group_id)
        if group is None or group.stale or self._told.get(group_id) == online:
            return
        self._told[group_id] = online
        frame = wsframe.text(frames.event("presence.count", {"group_id": str(group_id), "online": online}))
        for connection in group.connections:
            if connection.focus == group_id:
                connection.push_event(frame, droppable=True)


def _only(presence: Presence, group_ids: list[int]) -> Presence:
    rest = Presence()
    rest.CopyFrom(presence)
    rest.group_ids[:] = group_ids
    return rest


def _event(presence: Presence) -> bytes:
    fields: dict[str, object] = {"user_id": str(presence.user_id), "ts": presence.ts}
    if presence.online:
        return frames.event("presence", fields | {"state": "online", "last_seen": None})
    return frames.event("presence", fields | {"state": "offline", "last_seen": presence.last_seen})
