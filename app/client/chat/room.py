"""The open group: its history, what comes live, and how far it was read."""

from collections.abc import Sequence
from datetime import date

from rich.console import RenderableType

from app.client.chat.names import Names
from app.client.chat.render import day_line, day_of, message_line, new_line, notice, title
from app.client.chat.screen import Screen
from app.client.chat.texts import Texts
from app.client.client import Client
from app.client.groups import GroupView
from app.protocol.frames import Message

FIRST_PAGE = 30
"""About a screen."""


class Room:
    """Shows each message once: history up to a seq, then what comes live after it."""

    def __init__(self, view: GroupView, client: Client, screen: Screen, names: Names, text: Texts) -> None:
        self.view = view
        self.shown = 0
        """The newest seq on the screen."""
        self._oldest = 0
        self._day: date | None = None
        self._client = client
        self._screen = screen
        self._names = names
        self._text = text

    @property
    def group_id(self) -> str:
        """The group's id."""
        return self.view.group.id

    async def open(self) -> None:
        """Show the newest messages, with a mark above the first unread one. Raises AppError, ClientError."""
        read_seq, group = self.view.read_seq, self.view.group
        page = await self._client.api.history(self.group_id, limit=FIRST_PAGE)
        await self._names.look_up(self.group_id, {message.sender_id for message in page.items})
        opened = "opened_one" if group.member_count == 1 else "opened"
        lines: list[RenderableType] = [title(self._text(opened, name=group.name, count=group.member_count))]
        if group.announcement:
            lines.append(notice(self._text("announcement", text=group.announcement)))
        if page.has_more:
            lines.append(notice(self._text("older")))
        if not page.items:
            lines.append(notice(self._text("empty")))
        lines += self._lines(page.items, read_seq)
        if page.items:
            self._oldest = page.items[0].seq
            self.shown = page.items[-1].seq
        await self._screen.show(*lines)

    async def more(self) -> None:
        """Show an older page; a terminal cannot insert above, so it comes below. Raises AppError, ClientError."""
        if self._oldest <= 1:
            await self._screen.show(notice(self._text("no_older")))
            return
        page = await self._client.api.history(self.group_id, before_seq=self._oldest, limit=FIRST_PAGE)
        await self._names.look_up(self.group_id, {message.sender_id for message in page.items})
        self._day = None
        lines = self._lines(page.items, None)
        if page.items:
            self._oldest = page.items[0].seq
        self._day = None
        await self._screen.show(*lines, notice(self._text("older" if page.has_more else "no_older")))

    async def on_message(self, message: Message) -> None:
        """A live message; one that the history showed already is left out."""
        if message.seq <= self.shown:
            return
        await self._names.look_up(self.group_id, {message.sender_id})
        self.shown = message.seq
        self._oldest = self._oldest or message.seq
        await self._screen.show(*self._lines([message], None))

    def restart(self) -> None:
        """The server was restored: seqs may come again."""
        self.shown = 0

    def _lines(self, messages: Sequence[Message], read_seq: int | None) -> list[RenderableType]:
        lines: list[RenderableType] = []
        for message in messages:
            day = day_of(message.ts)
            if day != self._day:
                self._day = day
                lines.append(day_line(day, self._text))
            mine = message.sender_id == self._client.user_id
            if read_seq is not None and message.seq > read_seq and not mine:
                lines.append(new_line(self._text))
                read_seq = None
            lines.append(message_line(message, self._names.name(message.sender_id), mine=mine))
        return lines
