"""One group as this gateway knows it: its local connections, what was pushed, and what waits for the window."""

from collections.abc import Iterator, Sequence
from time import monotonic

from app.metrics import Metrics
from app.protocol import frames, wsframe
from app.web.gateway.connection import Connection

PACKET_BYTES = 65536
"""Messages in one frame, about: small enough for any client and for one write, large enough for a page of them."""


class LocalGroup:
    """`pushed_seq`: everything up to it was pushed or announced by gap. `stale`: members must be read again before the next push."""

    __slots__ = (
        "_events", "_items", "_large_members", "_lost_from", "_max_items", "_metrics", "_pull_within_ms", "access_version", "connections",
        "group_id", "last_push", "pushed_seq", "scheduled", "size", "stale",
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
        """With the access version at which each one's membership was read."""
        self.pushed_seq = pushed_seq
        self.access_version = access_version
        self.size = 0
        """Members anywhere, as last read; 0: not read yet."""
        self.stale = False
        self.scheduled = False
        self.last_push = 0.0
        self._items: list[bytes] = []
        self._events: list[tuple[bytes, bool]] = []
        self._lost_from: int | None = None
        self._metrics = metrics
        self._max_items = max_items
        self._pull_within_ms = pull_within_ms
        self._large_members = large_members

    @property
    def last_seq(self) -> int:
        """The newest seq that was pushed or waits to be."""
        return self.pushed_seq + len(self._items)

    @property
    def waiting(self) -> bool:
        """Whether something waits for the window."""
        return bool(self._items)

    def add(self, first_seq: int, items: Sequence[bytes]) -> None:
        """Take messages in; known ones are dropped, a hole before them is announced."""
        known = self.last_seq + 1 - first_seq
        if known >= len(items):
            return
        if known < 0:
            self.announce(first_seq - 1)
        self._items.extend(items[max(0, known) :])
        if len(self._items) > self._max_items:
            # Under a storm, or while the members cannot be read: the pull brings them.
            self.announce(self.last_seq, flush=False)

    def announce(self, last_seq: int, *, flush: bool = True) -> None:
        """Messages up to `last_seq` exist that will not be pushed: a gap says so."""
        if flush and not self.stale:
            self.push()
        if self._lost_from is None:
            self._lost_from = self.pushed_seq + 1
        self._items.clear()
        self.pushed_seq = last_seq
        if not self.stale:
            self._send_gap()

    def rebase(self, last_seq: int) -> None:
        """Start over at `last_seq`; nothing was promised to anybody yet."""
        self._items.clear()
        self._lost_from = None
        self.pushed_seq = last_seq

    def greet(self, connection: Connection) -> None:
        """A connection was added after it may have read the group: tell it the head, which costs nothing if it has it."""
        if self.last_seq:
            frame = wsframe.text(frames.gap(self.group_id, self.last_seq, self.last_seq, self._pull_within_ms))
            connection.push(self.group_id, self.last_seq, frame)

    def add_event(self, frame: bytes, *, droppable: bool) -> None:
        """An event for all members that waits until they are read; bounded like the messages."""
        if len(self._events) < self._max_items:
            self._events.append((frame, droppable))

    def push(self) -> None:
        """Everything that waits, to every local connection, encoded once."""
        if self._events:
            events, self._events = self._events, []
            for frame, droppable in events:
                self.push_event(frame, droppable=droppable)
        if self._lost_from is not None:
            self._send_gap()
        if not self._items:
            return
        items, self._items = self._items, []
        self.last_push = monotonic()
        for packet in _packets(items):
            first_seq = self.pushed_seq + 1
            frame = wsframe.text(frames.messages(self.group_id, self.pushed_seq, packet))
            self.pushed_seq += len(packet)
            delivered = sum(connection.push(self.group_id, first_seq, frame) for connection in self.connections)
            self._metrics.messages_delivered.inc(delivered * len(packet))

    def push_event(self, frame: bytes, *, droppable: bool) -> None:
        """An event to every local connection; in a large group a droppable one only to those that look at the group."""
        shed = 0
        focused_only = droppable and not 0 < self.size <= self._large_members
        for connection in self.connections:
            if focused_only and connection.focus != self.group_id:
                continue
            shed += not connection.push_event(frame, droppable=droppable)
        if shed:
            self._metrics.events_shed.inc(shed)

    def _send_gap(self) -> None:
        if self._lost_from is None:
            return
        frame = wsframe.text(frames.gap(self.group_id, self._lost_from, self.pushed_seq, self._pull_within_ms))
        for connection in self.connections:
            connection.push(self.group_id, self._lost_from, frame)
        self._metrics.gaps_sent.inc(len(self.connections))
        self._lost_from = None


def _packets(items: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The items in order, split where a frame would grow beyond PACKET_BYTES."""
    start = size = 0
    for index, item in enumerate(items):
        if size and size + len(item) > PACKET_BYTES:
            yield items[start:index]
            start, size = index, 0
        size += len(item)
    yield items[start:]
