"""The user's groups with unread counts: read from the server, kept current by events, read again when in doubt."""

import asyncio
import random
from dataclasses import dataclass

from msgspec.structs import replace

from app.client.api import Api
from app.client.backoff import Waits
from app.client.errors import ClientError, SessionEnded
from app.client.events import EventQueue, GroupLeft, GroupsChanged, GroupUpdated
from app.client.inbox import Inbox
from app.client.models import Group
from app.client.options import ClientOptions
from app.client.wire import Backoff, MemberChanged
from app.errors import AppError, Unauthorized
from app.protocol.frames import Message

UNREAD_SHOWN_MAX = 99


@dataclass(slots=True)
class GroupView:
    """One group as its user sees it."""

    group: Group
    last_seq: int
    read_seq: int
    """Everything up to it counts as read."""

    @property
    def unread(self) -> int:
        """Messages after the read mark."""
        return max(0, self.last_seq - self.read_seq)

    @property
    def unread_label(self) -> str:
        """As shown: empty for none, `99+` above 99."""
        if not self.unread:
            return ""
        return str(self.unread) if self.unread <= UNREAD_SHOWN_MAX else f"{UNREAD_SHOWN_MAX}+"


class GroupBook:
    """All groups of the user, by id."""

    def __init__(self, api: Api, inbox: Inbox, queue: EventQueue, options: ClientOptions, draw: random.Random) -> None:
        self._api = api
        self._inbox = inbox
        self._queue = queue
        self._options = options
        self._draw = draw
        self._wanted = asyncio.Event()
        self.views: dict[str, GroupView] = {}
        self._version_left: dict[str, int] = {}
        """Groups we are out of, with the version that said so: news that we joined may be older."""
        self.user_id = ""

    def want_refresh(self) -> None:
        """Read the list again soon; many wishes become one reading."""
        self._wanted.set()

    async def run(self) -> None:
        """Read the list whenever that is wanted, until cancelled. Raises SessionEnded when the credential is refused."""
        backoff = Backoff(self._options.busy_min_ms, self._options.busy_max_ms, self._options.backoff_jitter)
        waits = Waits(backoff, retry_after_max_s=self._options.retry_after_max_s, draw=self._draw)
        while True:
            await self._wanted.wait()
            await asyncio.sleep(self._options.refresh_within_s * self._draw.random())
            self._wanted.clear()
            try:
                await self.refresh()
            except Unauthorized as error:
                raise SessionEnded(error.status, error.message) from error
            except (AppError, ClientError) as error:
                self._wanted.set()
                await asyncio.sleep(waits.next_s(error.retry_after_ms if isinstance(error, AppError) else None))
            else:
                waits.reset()

    async def refresh(self) -> None:
        """Read the whole list now. Raises AppError, ClientError."""
        before = {*self.views, *self._inbox.group_ids}
        found: dict[str, Group] = {}
        cursor: str | None = None
        while len(found) < self._options.max_groups:
            page = await self._api.groups(cursor)
            found |= {group.id: group for group in page.items}
            cursor = page.next
            if cursor is None:
                break
        # Events may have overtaken the answer: what they said of later versions counts.
        for group in found.values():
            if group.version >= self._version_left.get(group.id, 0):
                self._put(group)
        for group_id in before - found.keys():
            self._inbox.drop(group_id)
            if self.views.pop(group_id, None) is not None:
                self._queue.offer(GroupLeft(group_id, ""))
        self._queue.offer(GroupsChanged())

    def forget(self) -> None:
        """The server was restored: numbers may be lower now."""
        self.views.clear()
        self._version_left.clear()

    def on_joined(self, group: Group) -> None:
        """The user is a member now, with the numbers of this moment."""
        if group.version < self._version_left.get(group.id, 0):
            return
        self._put(group)
        self._queue.offer(GroupsChanged())

    def learn(self, group: Group) -> GroupView:
        """The answer to our own creating or joining: newer than anything that was said before."""
        self._version_left.pop(group.id, None)
        self._put(group)
        self._queue.offer(GroupsChanged())
        return self.views[group.id]

    def on_updated(self, group: Group) -> None:
        """Name, announcement or owner changed; what concerns the caller alone is not part of it."""
        view = self.views.get(group.id)
        if view is None:
            self.want_refresh()
        elif group.version >= view.group.version:
            view.group = replace(group, role=view.group.role, muted_until=view.group.muted_until)
            self._queue.offer(GroupUpdated(view.group))
            self._queue.offer(GroupsChanged())

    def on_member(self, event: MemberChanged) -> None:
        """Somebody's membership changed; the end of our own has its own event."""
        view = self.views.get(event.group_id)
        if view is None or event.version < view.group.version:
            return
        view.group = replace(view.group, version=event.version, member_count=event.member_count)
        if event.user.id == self.user_id and event.role is not None:
            view.group = replace(view.group, role=event.role, muted_until=event.muted_until)
        self._queue.offer(GroupsChanged())

    def on_left(self, group_id: str, reason: str, version: int) -> None:
        """The user is no member any more."""
        view = self.views.get(group_id)
        if view is None or version < view.group.version:
            return
        del self.views[group_id]
        self._inbox.drop(group_id)
        self._version_left[group_id] = version
        if len(self._version_left) > self._options.max_groups:
            del self._version_left[next(iter(self._version_left))]
        self._queue.offer(GroupLeft(group_id, reason))
        self._queue.offer(GroupsChanged())

    def on_message(self, message: Message) -> None:
        """A message of some group arrived; sending counts as reading."""
        view = self.views.get(message.group_id)
        if view is not None:
            view.last_seq = max(view.last_seq, message.seq)
            if message.sender_id == self.user_id:
                view.read_seq = max(view.read_seq, message.seq)

    def on_read(self, group_id: str, seq: int) -> None:
        """The user read up to `seq`, here or on another device."""
        view = self.views.get(group_id)
        if view is not None and seq > view.read_seq:
            view.read_seq = seq
            self._queue.offer(GroupsChanged())

    def _put(self, group: Group) -> None:
        last_seq = group.last_seq or 0
        read_seq = last_seq - group.unread if group.unread is not None else group.last_read_seq or last_seq
        view = self.views.get(group.id)
        if view is None:
            self.views[group.id] = GroupView(group, last_seq, read_seq)
        else:
            # Messages may have arrived since the answer was made.
            if group.version >= view.group.version:
                view.group = group
            view.last_seq = max(view.last_seq, last_seq)
            view.read_seq = max(view.read_seq, read_seq)
        self._inbox.add(group.id, last_seq)
