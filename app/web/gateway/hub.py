"""The gateway's registry and fan-out: users and groups to local connections, blobs to packets, answers to whoever waits."""

import asyncio
from collections.abc import Callable, Iterable, Set
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
from app.protocol.magpie_pb2 import Answers, Blob, Event, GroupMessages, Head, Revoke
from app.web.answers import AnswerDesk
from app.web.gateway.connection import Connection, Outlet
from app.web.gateway.group import LocalGroup
from app.web.gateway.streams import Cause, Streams
from app.web.gateway.watcher import Watcher

K = TypeVar("K", int, UUID)


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
        answers: AnswerDesk,
        close: Callable[[Connection, int, str], None],
        metrics: Metrics,
        fan_out: FanOut,
    ) -> None:
        self._answers = answers
        self._close = close
        self._metrics = metrics
        self._fan_out = fan_out
        self._streams = Streams(metrics)
        self._by_user: dict[int, dict[Connection, None]] = {}
        self._by_session: dict[UUID, dict[Connection, None]] = {}
        self._groups: dict[int, LocalGroup] = {}
        self.outlet = Outlet()
        self.watchers: list[Watcher] = []
        self.connections: dict[Connection, None] = {}
        self.empty = asyncio.Event()
        """Set while there is no connection."""
        self.empty.set()
        self.stale: dict[int, bool] = {}
        """Groups whose members must be read, oldest first; true: their messages may have been missed too. The repairer's work list."""
        self.repair_cause: Cause | None = None
        """Set when every local group must be compared with the store."""
        self.cut = False
        """Whether nothing arrives from above: what happens is found by comparing again and again."""
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
        connection.joined = True
        # Found by a read that came between that of `memberships` and now.
        for group_id in connection.groups:
            self._read_soon(self._groups[group_id])
        for membership in memberships:
            group = self._groups.get(membership.group_id)
            if group is None:
                group = self._new_group(membership.group_id, membership.last_seq, membership.access_version)
            connection.groups.add(group.group_id)
            if membership.access_version < group.access_version:
                # Read before a change that is known here; only a new look tells.
                group.unsure[connection] = membership.access_version
                self._read_soon(group)
            else:
                group.unsure.pop(connection, None)
                group.connections[connection] = membership.access_version
                self._heard_of(group, membership.access_version)
        for watcher in self.watchers:
            watcher.came(connection)

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
                group.unsure.pop(connection, None)
                self._drop_if_empty(group)
        connection.groups.clear()
        if connection.joined:
            for watcher in self.watchers:
                watcher.went(connection)
        if not self.connections:
            self.empty.set()
        self._metrics.connections.set(len(self.connections))

    def local_users(self) -> list[int]:
        """Ids of the users with a connection here."""
        return list(self._by_user)

    def local_groups(self) -> list[int]:
        """Ids of the groups with a connection here."""
        return list(self._groups)

    def is_local(self, group_id: int) -> bool:
        """Whether there is a connection of the group here, or may be."""
        return group_id in self._groups

    def group(self, group_id: int) -> LocalGroup | None:
        """A group with a connection here."""
        return self._groups.get(group_id)

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
        if channel is Channel.CONTROL:
            for watcher in self.watchers:
                watcher.on_control(blob)

    def on_answers(self, answers: Answers) -> None:
        """Hand answers to whoever waits for them."""
        self._answers.on_answers(answers)

    def on_cut(self) -> None:
        """What happens from now on only the store tells."""
        if not self.cut:
            self.cut = True
            self.request_repair("cut")

    def on_reconnected(self) -> None:
        """Anything may have been missed."""
        self.cut = False
        self.request_repair("reconnected")
        self._answers.on_reconnected()

    def request_repair(self, cause: Cause) -> None:
        """Compare all local groups with the store soon."""
        self.repair_cause = self.repair_cause or cause
        self.work.set()

    def _on_messages(self, messages: GroupMessages) -> None:
        group = self._groups.get(messages.group_id)
        if group is None:
            return
        self._heard_of(group, messages.access_version)
        group.add(messages.first_seq, messages.items, messages.access_version)
        self._schedule(group)

    def _on_event(self, event: Event) -> None:
        frame = wsframe.text(event.frame)
        group = self._groups.get(event.group_id)
        for user_id in event.user_ids:
            for connection in self._by_user.get(user_id, ()):
                if connection.joined:
                    connection.push_event(frame, droppable=event.droppable)
                if event.access_version and group is None:
                    # Perhaps the first local member; a look at the store tells.
                    group = self._new_group(event.group_id, 0, 0)
        if group is None:
            return
        self._heard_of(group, event.access_version)
        if event.user_ids:
            return
        if event.droppable and not group.size and not group.stale:
            # Whether the group is large decides who gets it.
            self._read_soon(group)
        group.add_event(event.access_version, frame, droppable=event.droppable)

    def _on_head(self, head: Head) -> None:
        group = self._groups.get(head.group_id)
        if group is None:
            return
        self._heard_of(group, head.access_version)
        if head.last_seq > group.last_seq:
            group.announce(head.last_seq, head.access_version)

    def _on_revoke(self, revoke: Revoke) -> None:
        self.close_sessions((UUID(bytes=sid) for sid in revoke.sids), revoke.reason)

    # Window

    def _schedule(self, group: LocalGroup) -> None:
        """A group idle for a window is pushed at once; under load its messages collect for one window."""
        if group.scheduled or not group.ready:
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
        group.push()

    # Repair; the reading is done by the repairer

    def take_stale(self, at_most: int) -> dict[int, bool]:
        """The groups to read now, oldest first. They stay stale until `refreshed`; one that is marked meanwhile may be read once more."""
        taken = dict(islice(self.stale.items(), at_most))
        for group_id in taken:
            del self.stale[group_id]
        return taken

    def refreshed(self, group_id: int, users: Set[int], now: MembersNow | None, *, whole: bool) -> None:
        """The members of a group among these users were read again; without `now` it does not exist any more."""
        group = self._groups.get(group_id)
        if group is None:
            return
        if now is None:
            self._forget(group)
            return
        new = group.access_version == 0
        if new:
            # Made for somebody who just joined: what is there already comes by pull.
            group.rebase(max(now.last_seq, group.last_seq))
        group.access_version = max(group.access_version, now.access_version)
        group.size = now.size
        added = self._set_members(group, users, now)
        for connection in group.connections if new else added:
            group.greet(connection)
        if not self.stale.get(group_id, True) and self._shows_all(group, users):
            # Marked meanwhile, by a change that this read shows already.
            del self.stale[group_id]
        group.stale = group_id in self.stale
        group.push()
        if whole and now.last_seq > group.last_seq:
            group.announce(now.last_seq, now.access_version)
        self._drop_if_empty(group)

    def _shows_all(self, group: LocalGroup, users: Set[int]) -> bool:
        """Whether a read for `users` told all there is to know by now: nobody else connected since, who may have joined since."""
        return group.newest_version <= group.access_version and not group.unsure and self._by_user.keys() <= users

    def _set_members(self, group: LocalGroup, users: Set[int], now: MembersNow) -> list[Connection]:
        """Returns who was added. Who connected during the read was not asked for: the version of their own membership decides."""
        added = []
        for connection, version in [*group.connections.items(), *group.unsure.items()]:
            user_id = connection.principal.user_id
            if version > now.access_version or (version == now.access_version and user_id not in users):
                continue
            if user_id not in users:
                group.connections.pop(connection, None)
                group.unsure[connection] = version
                self._read_soon(group)
            elif user_id not in now.user_ids:
                group.connections.pop(connection, None)
                group.unsure.pop(connection, None)
                connection.groups.discard(group.group_id)
        for user_id in now.user_ids:
            for connection in self._by_user.get(user_id, ()):
                connection.groups.add(group.group_id)
                if not connection.joined:
                    group.unsure[connection] = now.access_version
                    continue
                if connection not in group.connections:
                    group.unsure.pop(connection, None)
                    added.append(connection)
                group.connections[connection] = now.access_version
        return added

    def mark_stale(self, group_ids: Iterable[int]) -> None:
        """Read these groups again, members and head; groups that are not local yet get a place for it."""
        for group_id in group_ids:
            group = self._groups.get(group_id) or self._new_group(group_id, 0, 0)
            self._read_soon(group, whole=True)

    def _read_soon(self, group: LocalGroup, *, whole: bool = False) -> None:
        group.stale = True
        self.stale[group.group_id] = whole or self.stale.get(group.group_id, False)
        self.work.set()

    def _heard_of(self, group: LocalGroup, version: int) -> None:
        """Something was committed under this version: read the members unless they are known as of then."""
        group.newest_version = max(group.newest_version, version)
        if version > group.access_version:
            self._read_soon(group)

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

    def _forget(self, group: LocalGroup) -> None:
        for connection in (*group.connections, *group.unsure):
            connection.groups.discard(group.group_id)
        self.stale.pop(group.group_id, None)
        del self._groups[group.group_id]

    def _drop_if_empty(self, group: LocalGroup) -> None:
        if not group.connections and not group.unsure and not group.stale:
            self._groups.pop(group.group_id, None)


def _discard(index: dict[K, dict[Connection, None]], key: K, connection: Connection) -> None:
    held = index.get(key)
    if held is not None:
        held.pop(connection, None)
        if not held:
            del index[key]
