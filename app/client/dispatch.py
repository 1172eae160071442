"""Takes each event of a connection to the part that keeps it."""

from app.client import wire
from app.client.events import EventQueue, MemberChanged, OnlineCounted, PresenceChanged, ReadMarked, Typing
from app.client.groups import GroupBook
from app.client.inbox import Inbox


class Dispatcher:
    """The listener of every socket of one client."""

    def __init__(self, inbox: Inbox, groups: GroupBook, queue: EventQueue) -> None:
        self._inbox = inbox
        self._groups = groups
        self._queue = queue
        self.drain_ms: int | None = None
        """Set when the server announced its end: how long to stay away."""

    def on_event(self, event: wire.ServerEvent) -> None:
        """One frame without an id."""
        match event:
            case wire.Packet():
                self._inbox.on_packet(event)
            case wire.Gap():
                self._inbox.on_gap(event)
            case wire.TypingNow():
                self._queue.offer(Typing(event.group_id, event.user_id))
            case wire.ReadMark():
                if event.user_id == self._groups.user_id:
                    self._groups.on_read(event.group_id, event.seq)
                self._queue.offer(ReadMarked(event.group_id, event.user_id, event.seq))
            case wire.PresenceNow():
                online = event.state == "online"
                self._queue.offer(PresenceChanged(event.user_id, online, event.last_seen, event.ts))
            case wire.OnlineNow():
                self._queue.offer(OnlineCounted(event.group_id, event.online))
            case wire.Drain():
                self.drain_ms = event.retry_after_ms
            case wire.Hello() | wire.Kick():
                # A second hello says nothing new; a kick is followed by its close frame.
                pass
            case _:
                self._on_group_event(event)

    def _on_group_event(self, event: wire.GroupEvent) -> None:
        match event:
            case wire.GroupJoined():
                self._groups.on_joined(event.group)
            case wire.GroupUpdated():
                self._groups.on_updated(event.group)
            case wire.GroupLeft():
                self._groups.on_left(event.group_id, event.reason, event.version)
            case wire.GroupDeleted():
                self._groups.on_left(event.group_id, "disbanded", event.version)
            case wire.MemberChanged():
                self._groups.on_member(event)
                self._queue.offer(
                    MemberChanged(event.group_id, event.user, event.change, event.role, event.muted_until)
                )
