"""One group as this gateway knows it: its local connections, what was pushed, and what waits for the window."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from time import monotonic

from app.metrics import Metrics
from app.protocol import frames, wsframe
from app.web.gateway.connection import Connection

PACKET_BYTES = 65536
"""Messages in one frame, about: small enough for any client and for one write, large enough for a page of them."""


class LocalGroup:
    """What is committed under an access version is pushed once the members are known as of that version or a later one."""

    __slots__ = (
        "_events", "_gap_version", "_items", "_large_members", "_lost_from", "_max_items", "_metrics", "_pull_within_ms", "_versions",
        "access_version", "connections", "group_id", "last_push", "newest_version", "pushed_seq", "scheduled", "size", "stale", "unsure",
    )  # fmt: skip

    def __init__(
        self,
        group_id: int,
        pushed_seq: int,
        access_version: int,
        metrics: Metrics,
        *,
        max_items: int,
        pull_within_ms: int,
        large_members: int,
    ) -> None:
        self.group_id = group_id
        self.connections: dict[Connection, int] = {}
        """Of members, with the access version at which each one's membership was read."""
        self.unsure: dict[Connection, int] = {}
        """The same of those whose membership was read before a change that is known here: they get nothing before the next read."""
        self.pushed_seq = pushed_seq
        """Everything up to it was pushed or announced by gap."""
        self.access_version = access_version
        """As of which the members are known; 0: never read."""
        self.newest_version = access_version
        """The newest that was heard of."""
        self.size = 0
        """Members anywhere, as last read; 0: not read yet."""
        self.stale = False
        """Whether a read of the members is due or under way."""
        self.scheduled = False
        self.last_push = 0.0
        self._items: list[bytes] = []
        self._versions: list[int] = []
        """Under which each item was committed; rises with seq."""
        self._events: list[tuple[int, bytes, bool]] = []
        self._lost_from: int | None = None
        self._gap_version = 0
        self._metrics = metrics
        self._max_items = max_items
        self._pull_within_ms = pull_within_ms
        self._large_members = large_members

    @property
    def last_seq(self) -> int:
        """The newest seq that was pushed or waits to be."""
        return self.pushed_seq + len(self._items)

    @property
    def ready(self) -> bool:
        """Whether messages may be pushed now."""
        return bool(self._items) and self._lost_from is None and self._versions[0] <= self.access_version

    def add(self, first_seq: int, items: Sequence[bytes], version: int) -> None:
        """Take messages in; known ones are dropped, a hole before them is announced."""
        known = self.last_seq + 1 - first_seq
        if known >= len(items):
            return
        if known < 0:
            self.announce(first_seq - 1, version)
        new = items[max(0, known) :]
        self._items.extend(new)
        self._versions.extend([version] * len(new))
        if len(self._items) > self._max_items:
            # Under a storm, or while the members cannot be read: the pull brings them.
            self.announce(self.last_seq, version, flush=False)

    def announce(self, last_seq: int, version: int, *, flush: bool = True) -> None:
        """Messages up to `last_seq` exist that will not be pushed: a gap says so."""
        if flush:
            self.push()
        if self._lost_from is None:
            self._lost_from = self.pushed_seq + 1
        self._gap_version = max(self._gap_version, version)
        self._items.clear()
        self._versions.clear()
        self.pushed_seq = last_seq
        self._send_gap()

    def rebase(self, last_seq: int) -> None:
        """Start over at `last_seq`; nothing was promised to anybody yet."""
        self._items.clear()
        self._versions.clear()
        self._lost_from = None
        self.pushed_seq = last_seq

    def greet(self, connection: Connection) -> None:
        """A connection was added after it may have read the group: tell it the head, which costs nothing if it has it."""
        if self.last_seq:
            frame = wsframe.text(frames.gap(self.group_id, self.last_seq, self.last_seq, self._pull_within_ms))
            connection.push(self.group_id, self.last_seq, frame)

    def add_event(self, version: int, frame: bytes, *, droppable: bool) -> None:
        """An event for all members, pushed now or when they are known; what waits is bounded like the messages."""
        if len(self._events) >= self._max_items:
            self._metrics.events_shed.inc()
            # Typing makes room for a role or a name; it would be old news anyway.
            old = next((i for i, waiting in enumerate(self._events) if waiting[2]), None)
            if droppable or old is None:
                return
            del self._events[old]
        self._events.append((version, frame, droppable))
        self._push_events()

    def push(self) -> None:
        """Everything that waits and may go, to every local connection, encoded once."""
        self._push_events()
        self._send_gap()
        if not self.ready:
            return
        count = bisect_right(self._versions, self.access_version)
        items, self._items = self._items[:count], self._items[count:]
        del self._versions[:count]
        self.last_push = monotonic()
        for packet in _packets(items):
            first_seq = self.pushed_seq + 1
            frame = wsframe.text(frames.messages(self.group_id, self.pushed_seq, packet))
            self.pushed_seq += len(packet)
            delivered = sum(connection.push(self.group_id, first_seq, frame) for connection in self.connections)
            self._metrics.messages_delivered.inc(delivered * len(packet))

    def _push_events(self) -> None:
        """In the order they came. In a large group a droppable one goes only to who looks at the group."""
        sent = shed = 0
        for version, frame, droppable in self._events:
            if version > self.access_version or (droppable and not self.size):
                break
            sent += 1
            focused_only = droppable and self.size > self._large_members
            for connection in self.connections:
                if not focused_only or connection.focus == self.group_id:
                    shed += not connection.push_event(frame, droppable=droppable)
        del self._events[:sent]
        if shed:
            self._metrics.events_shed.inc(shed)

    def _send_gap(self) -> None:
        if self._lost_from is None or self._gap_version > self.access_version:
            return
        frame = wsframe.text(frames.gap(self.group_id, self._lost_from, self.pushed_seq, self._pull_within_ms))
        for connection in self.connections:
            connection.push(self.group_id, self._lost_from, frame)
        self._metrics.gaps_sent.inc(len(self.connections))
        self._lost_from = None
        self._gap_version = 0


def _packets(items: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The items in order, split where a frame would grow beyond PACKET_BYTES."""
    start = size = 0
    for index, item in enumerate(items):
        if size and size + len(item) > PACKET_BYTES:
            yield items[start:index]
            start, size = index, 0
        size += len(item)
    yield items[start:]
