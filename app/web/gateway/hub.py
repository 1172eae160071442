"""The gateway's registry and fan-out: users and groups to local connections, blobs to packets, answers to whoever waits."""

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import TypeVar
from uuid import UUID

from app.delivery.base import Channel
from app.metrics import Metrics
from app.modules.groups.models import Membership, MembersNow
from app.protocol import frames, wsframe
from app.protocol.frames import CLOSE_REVOKED
from app.protocol.magpie_pb2 import Answer, Answers, Blob, Event, GroupMessages, Head, Revoke
from app.web.gateway.connection import Connection, Outlet
from app.web.gateway.group import LocalGroup
from app.web.gateway.streams import Cause, Streams

K = TypeVar("K", int, UUID)
NOBODY = MembersNow(user_ids=set(), last_seq=0, access_version=-1, size=0)
"""Of a group that does not exist any more; no membership is of this version."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """Settings of the fan-out."""

    window_s: float
    window_max_s: float
    window_max_items: int
    pull_within_ms: int
    large_group_members: int


class Hub:
    """Everything that is local to this gateway. A Receiver for delivery; never blocks, never raises."""

    def __init__(
        self,
        boot_id: str,
        on_answer: Callable[[Answer], None],
        on_answers_lost: Callable[[], None],
        close: Callable[[Connection, int, str], None],
        metrics: Metrics,
        fan_out: FanOut,
    ) -> None:
        self._boot_id = boot_id
        self._on_answer = on_answer
        self._on_answers_lost = on_answers_lost
        self._close = close
        self._metrics = metrics
        self._fan_out = fan_out
        self._streams = Streams(metrics)
        self._by_user: dict[int, dict[Connection, None]] = {}
        self._by_session: dict[UUID, dict[Connection, None]] = {}
        self._groups: dict[int, LocalGroup] = {}
        self.outlet = Outlet()
        self.connections: dict[Connection, None] = {}
        self.empty = asyncio.Event()
        """Set while there is no connection."""
        self.empty.set()
        self.stale: dict[int, None] = {}
        """Groups whose members must be read; the repairer's work list."""
        self.repair_cause: Cause | None = None
        """Set when every local group must be compared with the store."""
        self.work = asyncio.Event()
        """Set when the repairer has something to do."""

    # Registry

    def register(self, connection: Connection) -> None:
        """The connection exists: it can be found by user and session, but gets no packets before `join`."""
        self.connections[connection] = None
        self.empty.clear()
        self._by_user.setdefault(connection.principal.user_id, {})[connection] = None
        self._by_session.setdefault(connection.principal.sid, {})[connection] = None
        self._metrics.connections.set(len(self.connections))

    def join(self, connection: Connection, memberships: Iterable[Membership]) -> None:
        """The connection gets the packets of these groups from now on."""
        if connection not in self.connections:
            return
        for membership in memberships:
            group = self._groups.get(membership.group_id)
            if group is None:
                group = self._new_group(membership.group_id, membership.last_seq, membership.access_version)
            elif group.access_version != membership.access_version:
                # One of the two was read before a change; only a new look tells.
                self._mark_stale(group)
            group.connections[connection] = membership.access_version
            connection.groups.add(group.group_id)

    def remove(self, connection: Connection) -> None:
        """The connection is gone."""
        if self.connections.pop(connection, connection) is connection:
            return
        _discard(self._by_user, connection.principal.user_id, connection)
        _discard(self._by_session, connection.principal.sid, connection)
        for group_id in connection.groups:
            group = self._groups.get(group_id)
            if group is not None:
                group.connections.pop(connection, None)
                self._drop_if_empty(group)
        connection.groups.clear()
        if not self.connections:
            self.empty.set()
        self._metrics.connections.set(len(self.connections))

    def local_users(self) -> list[int]:
        """Ids of the users with a connection here."""
        return list(self._by_user)

    def local_groups(self) -> list[int]:
        """Ids of the groups with a connection here."""
        return list(self._groups)

    def local_sessions(self) -> list[UUID]:
        """Sessions with a connection here."""
        return list(self._by_session)

    def close_sessions(self, sids: Iterable[UUID], reason: str) -> None:
        """Close every socket of these sessions."""
        for sid in sids:
            for connection in list(self._by_session.get(sid, ())):
                connection.send(frames.event("kick", {"reason": reason}))
                self._close(connection, CLOSE_REVOKED, reason)

    # Receiver

    def on_blob(self, channel: Channel, blob: Blob) -> None:
        """Fan out what concerns local groups, and notice what was missed."""
        cause = self._streams.see(channel, blob.publisher, blob.number)
        if cause is not None:
            self.request_repair(cause)
        with self._metrics.stage("fan_out"):
            for messages in blob.messages:
                self._on_messages(messages)
            for event in blob.events:
                self._on_event(event)
            for head in blob.heads:
                self._on_head(head)
        if blob.HasField("revoke"):
            self._on_revoke(blob.revoke)

    def on_answers(self, answers: Answers) -> None:
        """Hand answers to the producer; those for an earlier life of this node are dropped."""
        if answers.boot_id == self._boot_id:
            for answer in answers.answers:
                self._on_answer(answer)

    def on_reconnected(self) -> None:
        """Anything may have been missed."""
        self.request_repair("reconnected")
        self._on_answers_lost()

    def request_repair(self, cause: Cause) -> None:
        """Compare all local groups with the store soon."""
        self.repair_cause = self.repair_cause or cause
        self.work.set()

    def _on_messages(self, messages: GroupMessages) -> None:
        group = self._groups.get(messages.group_id)
        if group is None:
            return
        if messages.access_version > group.access_version:
            self._mark_stale(group)
        group.add(messages.first_seq, messages.items)
        self._schedule(group)

    def _on_event(self, event: Event) -> None:
        frame = wsframe.text(event.frame)
        group = self._groups.get(event.group_id)
        for user_id in event.user_ids:
            for connection in self._by_user.get(user_id, ()):
                connection.push_event(frame, droppable=event.droppable)
                if event.access_version and group is None:
                    # Perhaps the first local member; a look at the store tells.
                    group = self._new_group(event.group_id, 0, 0)
        if group is None:
            return
        if event.access_version > group.access_version:
            self._mark_stale(group)
        if event.user_ids:
            return
        if event.droppable and not group.size:
            # Whether the group is large decides who gets it.
            self._read_soon(group)
        if group.stale or group.group_id in self.stale:
            group.add_event(frame, droppable=event.droppable)
        else:
            group.push_event(frame, droppable=event.droppable)

    def _on_head(self, head: Head) -> None:
        group = self._groups.get(head.group_id)
        if group is None:
            return
        if head.access_version > group.access_version:
            self._mark_stale(group)
        if head.last_seq > group.last_seq:
            group.announce(head.last_seq)

    def _on_revoke(self, revoke: Revoke) -> None:
        self.close_sessions((UUID(bytes=sid) for sid in revoke.sids), revoke.reason)

    # Window

    def _schedule(self, group: LocalGroup) -> None:
        """A group idle for a window is pushed at once; under load its messages collect for one window."""
        if group.stale or group.scheduled or not group.waiting:
            return
        # The window stretches so that writing takes at most a quarter of the time.
        window_s = min(max(self._fan_out.window_s, 4 * self.outlet.turn_s), self._fan_out.window_max_s)
        wait_s = group.last_push + window_s - monotonic()
        if wait_s <= 0:
            group.push()
        else:
            group.scheduled = True
            asyncio.get_running_loop().call_later(wait_s, self._window_over, group)

    def _window_over(self, group: LocalGroup) -> None:
        group.scheduled = False
        if not group.stale:
            group.push()

    # Repair; the reading is done by the repairer

    def take_stale(self, at_most: int) -> list[int]:
        """The groups to read now, oldest first. They stay stale until `refreshed`; one that is marked meanwhile is read once more."""
        taken = list(islice(self.stale, at_most))
        for group_id in taken:
            del self.stale[group_id]
        return taken

    def refreshed(self, groups: Iterable[int], users: Container[int], members: Mapping[int, MembersNow]) -> None:
        """The members of these groups among these users were read again; groups not found do not exist any more."""
        for group_id in groups:
            group = self._groups.get(group_id)
            if group is None:
                continue
            now = members.get(group_id, NOBODY)
            new = group.access_version == 0
            if new:
                # Made for somebody who just joined: what is there already comes by pull.
                group.rebase(max(now.last_seq, group.last_seq))
            group.access_version = max(group.access_version, now.access_version)
            group.size = now.size
            added = self._set_members(group, users, now)
            for connection in group.connections if new else added:
                group.greet(connection)
            group.stale = group_id in self.stale
            if not group.stale:
                group.push()
                if now.last_seq > group.last_seq:
                    group.announce(now.last_seq)
            self._drop_if_empty(group)

    def _set_members(self, group: LocalGroup, users: Container[int], now: MembersNow) -> list[Connection]:
        """Returns who was added.

        Who connected during the read was not asked for: the membership it came with counts if it is of the same version.
        """
        added = []
        for connection, version in list(group.connections.items()):
            user_id = connection.principal.user_id
            if user_id not in users:
                if version != now.access_version:
                    self._mark_stale(group)
            elif user_id not in now.user_ids:
                del group.connections[connection]
                connection.groups.discard(group.group_id)
            else:
                group.connections[connection] = now.access_version
        for user_id in now.user_ids:
            for connection in self._by_user.get(user_id, ()):
                if connection not in group.connections:
                    group.connections[connection] = now.access_version
                    connection.groups.add(group.group_id)
                    added.append(connection)
        return added

    def mark_stale(self, group_ids: Iterable[int]) -> None:
        """Read the members of these groups again; groups that are not local yet get a place for it."""
        for group_id in group_ids:
            self._mark_stale(self._groups.get(group_id) or self._new_group(group_id, 0, 0))

    def _mark_stale(self, group: LocalGroup) -> None:
        """Nothing is pushed to the group until its members were read."""
        group.stale = True
        self._read_soon(group)

    def _read_soon(self, group: LocalGroup) -> None:
        self.stale[group.group_id] = None
        self.work.set()

    def _new_group(self, group_id: int, pushed_seq: int, access_version: int) -> LocalGroup:
        group = LocalGroup(
            group_id,
            pushed_seq,
            access_version,
            self._metrics,
            max_items=self._fan_out.window_max_items,
            pull_within_ms=self._fan_out.pull_within_ms,
            large_members=self._fan_out.large_group_members,
        )
        self._groups[group_id] = group
        return group

    def _drop_if_empty(self, group: LocalGroup) -> None:
        if not group.connections and not group.stale:
            self._groups.pop(group.group_id, None)


def _discard(index: dict[K, dict[Connection, None]], key: K, connection: Connection) -> None:
    held = index.get(key)
    if held is not None:
        held.pop(connection, None)
        if not held:
            del index[key]
