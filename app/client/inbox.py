"""What comes down, by group: cursors decide what the reader sees, the queue decides whether there is room. No I/O."""

from collections.abc import Callable, Mapping

from app.client import wire
from app.client.cursor import Cursor, Pull
from app.client.events import EventQueue, Forgotten, How, MessageReceived
from app.client.models import Delta
from app.client.options import ClientOptions
from app.protocol.frames import Message

Want = Callable[[str, int], None]
"""Pull this group after a random part of so many milliseconds."""


class Inbox:
    """All cursors of one user. Messages for which the queue has no room are left on the server and pulled later."""

    def __init__(
        self,
        queue: EventQueue,
        options: ClientOptions,
        *,
        want: Want,
        on_message: Callable[[Message, How], None],
        on_unknown: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._options = options
        self._want = want
        self._on_message = on_message
        self._on_unknown = on_unknown
        self._cursors: dict[str, Cursor] = {}

    @property
    def group_ids(self) -> list[str]:
        """Every group with a cursor."""
        return list(self._cursors)

    def get(self, group_id: str) -> Cursor | None:
        """The cursor of a group the user is in."""
        return self._cursors.get(group_id)

    def begin_pulls(self) -> dict[str, Pull]:
        """What to ask for in every group."""
        return {group_id: cursor.begin_pull() for group_id, cursor in self._cursors.items()}

    def add(self, group_id: str, head: int) -> None:
        """A group the user is in; one that is known keeps its cursor."""
        if group_id in self._cursors or len(self._cursors) >= self._options.max_groups:
            return
        from_head = self._options.start == "head"
        cursor = self._cursors[group_id] = Cursor(head if from_head else 0, max_aside=self._options.max_aside)
        if cursor.have < head:
            cursor.on_gap(head)
            self._want(group_id, 0)

    def drop(self, group_id: str) -> None:
        """The user is no member any more."""
        self._cursors.pop(group_id, None)

    def forget(self, group_id: str) -> None:
        """The server was restored: this cursor means nothing any more."""
        self.drop(group_id)
        self._queue.offer(Forgotten(group_id))

    def forget_all(self) -> None:
        """The same for every group."""
        for group_id in self.group_ids:
            self.forget(group_id)

    def on_packet(self, packet: wire.Packet) -> None:
        """Pushed messages."""
        cursor = self._cursors.get(packet.group_id)
        if cursor is None:
            # A packet may overtake the news that we joined.
            self.add(packet.group_id, packet.prev_seq)
            self._on_unknown()
            cursor = self._cursors.get(packet.group_id)
            if cursor is None:
                return
        if len(packet.items) + cursor.aside > self._queue.room:
            cursor.on_gap(None)
        else:
            self._release(cursor.on_packet(packet.prev_seq, packet.items), "push")
        if cursor.wants_pull:
            self._want(packet.group_id, 0)

    def on_gap(self, gap: wire.Gap) -> None:
        """Messages that were not pushed."""
        cursor = self._cursors.get(gap.group_id)
        if cursor is None:
            self._on_unknown()
            return
        cursor.on_gap(gap.to_seq)
        if cursor.wants_pull:
            self._want(gap.group_id, gap.pull_within_ms)

    def on_pulled(self, group_id: str, pull: Pull, delta: Delta) -> None:
        """One group in the answer to a pull."""
        cursor = self._cursors.get(group_id)
        if cursor is None:
            return
        items = delta.items[: max(0, self._queue.room - cursor.aside)]
        complete = not delta.has_more and len(items) == len(delta.items)
        self._release(cursor.on_pulled(pull, items, complete=complete), "pull")

    def on_resumed(self, asked: Mapping[str, Pull], answer: Mapping[str, wire.Resumed]) -> bool:
        """The answer to `resume`. False: some groups are not ours any more, or need a new start."""
        all_known = True
        for group_id, pull in asked.items():
            cursor, resumed = self._cursors.get(group_id), answer.get(group_id)
            if cursor is None:
                continue
            if resumed is None:
                all_known = False
            elif resumed.state == "reset" and not resumed.last_seq:
                # Not ours any more, as far as one can tell; the list says.
                self.drop(group_id)
                all_known = False
            elif resumed.state == "reset":
                self.forget(group_id)
                self.add(group_id, resumed.last_seq)
            else:
                self.on_pulled(group_id, pull, _as_delta(pull, resumed))
                cursor.on_gap(resumed.last_seq)
                if cursor.wants_pull:
                    self._want(group_id, round(1000 * self._options.refresh_within_s))
        return all_known

    def _release(self, messages: list[Message], how: How) -> None:
        for message in messages:
            self._on_message(message, how)
            self._queue.offer(MessageReceived(message, how))


def _as_delta(pull: Pull, resumed: wire.Resumed) -> Delta:
    items = resumed.items or []
    reached = items[-1].seq if items else pull.after
    return Delta(items, resumed.last_seq, reached < resumed.last_seq)
