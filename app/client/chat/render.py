"""How things look: messages, separators, lists. Everything that others wrote is made harmless first."""

import unicodedata
from collections.abc import Sequence
from datetime import date, datetime
from zlib import crc32

from rich.console import RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from app.client.chat.texts import WEEKDAYS, Texts
from app.client.groups import GroupView
from app.client.models import Group, Member, MemberPresence, Presence
from app.protocol.frames import Message

NAME_WIDTH = 16
COLOURS = (
    "cyan", "green", "yellow", "magenta", "blue", "bright_red", "bright_cyan", "bright_green", "bright_yellow", "bright_magenta",
)  # fmt: skip
BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def harmless(text: str, *, lines: bool = False) -> str:
    """Without control characters (escape sequences of terminals begin with one) and without marks that turn text around."""
    return "".join(
        "\n" if c == "\n" and lines else " " if c in "\n\t" else "\ufffd" if unicodedata.category(c) == "Cc" else c
        for c in text
        if c not in BIDI
    )


def colour_of(user_id: str) -> str:
    """The same colour for a user in every chat."""
    return COLOURS[crc32(user_id.encode()) % len(COLOURS)]


def day_of(ts: int) -> date:
    """The local day of a time in ms since 1970."""
    return datetime.fromtimestamp(ts / 1000).astimezone().date()


def clock(ts: int) -> str:
    """Hours and minutes, local."""
    return datetime.fromtimestamp(ts / 1000).astimezone().strftime("%H:%M")


def moment(ts: int) -> str:
    """Day and time, local."""
    return datetime.fromtimestamp(ts / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


def message_line(message: Message, name: str, *, mine: bool) -> RenderableType:
    """One message; long ones are wrapped under their beginning."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, max_width=NAME_WIDTH, overflow="ellipsis")
    grid.add_column(overflow="fold", ratio=1)
    style = f"bold {colour_of(message.sender_id)}" if mine else colour_of(message.sender_id)
    grid.add_row(
        Text(clock(message.ts), style="bright_black"),
        Text(harmless(name), style=style),
        Text(harmless(message.body, lines=True)),
    )
    return grid


def day_line(day: date, text: Texts) -> RenderableType:
    """A separator with the date."""
    weekday = WEEKDAYS[text.language][day.weekday()]
    title = f"{day.year}年{day.month}月{day.day}日 {weekday}" if text.language == "zh" else f"{weekday}, {day:%Y-%m-%d}"
    return Rule(title, style="bright_black", characters="─")


def new_line(text: Texts) -> RenderableType:
    """A separator above the first unread message."""
    return Rule(text("new_from_here"), style="red", characters="─")


def notice(line: str) -> RenderableType:
    """What the chat itself says."""
    return Text(harmless(line, lines=True), style="bright_black")


def problem(line: str) -> RenderableType:
    """What went wrong."""
    return Text(harmless(line, lines=True), style="red")


def title(line: str) -> RenderableType:
    """A heading."""
    return Text(harmless(line), style="bold")


def group_list(views: Sequence[GroupView], opened: str | None, text: Texts) -> RenderableType:
    """The user's groups, numbered from 1."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for number, view in enumerate(views, 1):
        unread = text("unread", count=view.unread_label) if view.unread else ""
        here = "*" if view.group.id == opened else " "
        table.add_row(
            Text(f"{here}{number:>3}"),
            Text(harmless(view.group.name), style="bold" if view.unread else ""),
            Text(unread, style="yellow"),
            Text(text(f"visibility_{view.group.visibility}"), style="bright_black"),
            Text(text(f"role_{view.group.role or 'member'}"), style="bright_black"),
        )
    return table


def found_list(groups: Sequence[Group]) -> RenderableType:
    """Open groups of the server."""
    table = Table.grid(padding=(0, 2, 0, 1))
    for group in groups:
        joined = "✓" if group.joined else " "
        table.add_row(Text(joined, style="green"), Text(harmless(group.name)), Text(str(group.member_count), style="bright_black"),
                      Text(group.id, style="bright_black"))  # fmt: skip
    return table


def member_list(members: Sequence[Member], presence: Presence | None, text: Texts, now_ms: int) -> RenderableType:
    """Members with role, mute, and whether they are online where that is known."""
    present = {each.user_id: each for each in presence.members or ()} if presence else {}
    table = Table.grid(padding=(0, 2, 0, 1))
    for member in members:
        user = member.user
        muted = ""
        if member.muted_until is not None and member.muted_until > now_ms:
            muted = text("muted_until", time=moment(member.muted_until))
        table.add_row(
            Text(harmless(user.name), style=colour_of(user.id)),
            Text(f"@{harmless(user.username)}", style="bright_black"),
            Text("" if member.role == "member" else text(f"role_{member.role}"), style="yellow"),
            _seen(present.get(user.id), text),
            Text(muted, style="red"),
        )
    return table


def _seen(presence: MemberPresence | None, text: Texts) -> Text:
    if presence is not None and presence.state == "online":
        return Text(text("present"), style="green")
    if presence is None or presence.last_seen is None:
        return Text("")
    return Text(text("last_seen", time=moment(presence.last_seen)), style="bright_black")
