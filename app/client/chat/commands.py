"""The slash commands: a method each, its usage beside it."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from time import time
from typing import Protocol

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from app.client.chat.names import Names
from app.client.chat.render import found_list, group_list, member_list, moment, notice, problem, title
from app.client.chat.room import Room
from app.client.chat.screen import Screen
from app.client.chat.texts import Texts
from app.client.client import Client
from app.client.groups import GroupView
from app.client.models import Group, Member

MEMBERS_SHOWN = 100
MUTE_MINUTES = 10


class Leave(Exception):
    """The person leaves the chat."""


class Usage(Exception):
    """The command needs something else; shown with its usage."""


class Doors(Protocol):
    """Which group is open."""

    room: Room | None

    async def enter(self, view: GroupView) -> None:
        """Open a group."""


@dataclass(frozen=True, slots=True)
class Command:
    """`usage` names the text that says what comes after the name."""

    run: Callable[[str], Awaitable[None]]
    usage: str = "usage_none"


class Commands:
    """What a line that begins with a slash does."""

    def __init__(self, client: Client, screen: Screen, names: Names, doors: Doors, text: Texts) -> None:
        self._client = client
        self._screen = screen
        self._names = names
        self._doors = doors
        self._text = text
        self._listed: list[str] = []
        self.table: dict[str, Command] = {
            "help": Command(self._help),
            "groups": Command(self._groups),
            "open": Command(self._open, "usage_open"),
            "more": Command(self._more),
            "discover": Command(self._discover, "usage_discover"),
            "create": Command(self._create, "usage_create"),
            "join": Command(self._join, "usage_join"),
            "invite": Command(self._invite),
            "members": Command(self._members),
            "leave": Command(self._leave),
            "announce": Command(self._announce, "usage_announce"),
            "kick": Command(self._kick, "usage_user"),
            "ban": Command(self._ban, "usage_user"),
            "mute": Command(self._mute, "usage_mute"),
            "unmute": Command(self._unmute, "usage_user"),
            "admin": Command(self._admin, "usage_user"),
            "disband": Command(self._disband, "usage_disband"),
            "quit": Command(self._quit),
        }

    async def run(self, line: str) -> None:
        """Carry out `/name argument`. Raises Leave, AppError, ClientError."""
        name, _, argument = line[1:].strip().partition(" ")
        if name.isdecimal():
            name, argument = "open", name
        command = self.table.get(name.lower())
        if command is None:
            await self._say(problem(self._text("unknown_command", name=name)))
            return
        try:
            await command.run(argument.strip())
        except Usage:
            await self._say(problem(self._text("usage", usage=f"/{name} {self._text(command.usage)}")))

    def complete(self, line: str) -> Iterable[str]:
        """Lines that begin with `line`: command names, and group names after /open."""
        if line.startswith("/open "):
            lines = [f"/open {view.group.name}" for view in self._client.groups]
        elif line.startswith("/"):
            lines = [f"/{name} " if self._text(command.usage) else f"/{name}" for name, command in self.table.items()]
        else:
            lines = []
        return [candidate for candidate in lines if candidate.casefold().startswith(line.casefold())]

    async def list_groups(self) -> None:
        """The group list, or how to get one."""
        views = self._client.groups
        self._listed = [view.group.id for view in views]
        if not views:
            await self._say(notice(self._text("no_groups")))
            return
        opened = self._doors.room.group_id if self._doors.room else None
        lines = [title(self._text("groups")), group_list(views, opened, self._text)]
        await self._say(*lines, *([] if opened else [notice(self._text("open_hint"))]))

    # For everybody

    async def _help(self, _: str) -> None:
        table = Table.grid(padding=(0, 2, 0, 1))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, command in self.table.items():
            table.add_row(
                Text(f"/{name} {self._text(command.usage)}"), Text(self._text(f"help_{name}"), style="bright_black")
            )
        await self._say(title(self._text("help")), table, notice(self._text("help_text")))

    async def _groups(self, _: str) -> None:
        await self._client.refresh_groups()
        await self.list_groups()

    async def _open(self, argument: str) -> None:
        if not argument:
            raise Usage
        views = {view.group.id: view for view in self._client.groups}
        if argument.isdecimal() and 1 <= int(argument) <= len(self._listed):
            view = views.get(self._listed[int(argument) - 1])
            found = [view] if view else []
        else:
            found = [
                v for v in views.values() if v.group.name.casefold() == argument.casefold() or v.group.id == argument
            ]
        if len(found) == 1:
            await self._doors.enter(found[0])
        elif found:
            await self._say(notice(self._text("several", name=argument)))
            await self.list_groups()
        else:
            await self._say(problem(self._text("which_group", name=argument)))

    async def _more(self, _: str) -> None:
        if room := await self._room():
            await room.more()

    async def _discover(self, argument: str) -> None:
        page = await self._client.api.discover(argument or None)
        if not page.items:
            await self._say(notice(self._text("nothing_found")))
            return
        more = [notice(self._text("more_members"))] if page.next else []
        await self._say(title(self._text("discover")), found_list(page.items), *more)

    async def _create(self, argument: str) -> None:
        closed = argument.startswith("!")
        name = argument.removeprefix("!").strip()
        if not name:
            raise Usage
        group = await self._client.api.create_group(name, "invite" if closed else "open")
        await self._say(notice(self._text("created" if closed else "created_open", name=group.name)))
        await self._enter(group)

    async def _join(self, argument: str) -> None:
        if not argument:
            await self._discover("")
            return
        first, _, code = argument.partition(" ")
        if first.isdecimal() and (code.strip() or len(first) > 10):
            await self._enter(await self._client.api.join(first, code.strip() or None))
            return
        page = await self._client.api.discover(argument)
        named = [group for group in page.items if group.name.casefold() == argument.casefold()]
        if len(named) == 1:
            await self._enter(await self._client.api.join(named[0].id))
        elif named:
            await self._say(notice(self._text("several", name=argument)), found_list(named))
        else:
            await self._say(problem(self._text("not_found_open", name=argument)))

    async def _quit(self, _: str) -> None:
        raise Leave

    # In the open group

    async def _invite(self, _: str) -> None:
        if room := await self._room():
            invite = await self._client.api.invite(room.group_id)
            line = self._text("invited", name=room.view.group.name, time=moment(invite.expires_at))
            await self._say(notice(line), Text(f"/join {room.group_id} {invite.code}"))

    async def _members(self, _: str) -> None:
        if room := await self._room():
            page = await self._client.api.members(room.group_id, limit=MEMBERS_SHOWN)
            presence = await self._client.api.presence(room.group_id)
            for member in page.items:
                self._names.learn(member.user)
            more = [notice(self._text("more_members"))] if page.next else []
            name = room.view.group.name
            heading = (
                self._text("members_online", name=name, count=presence.online)
                if presence
                else self._text("members", name=name)
            )
            await self._say(title(heading), member_list(page.items, presence, self._text, _now_ms()), *more)

    async def _leave(self, _: str) -> None:
        if room := await self._room():
            await self._client.api.leave(room.group_id)

    async def _announce(self, argument: str) -> None:
        if room := await self._room():
            await self._client.api.update_group(room.group_id, announcement=argument)

    async def _kick(self, argument: str) -> None:
        if found := await self._member(argument):
            await self._client.api.kick(found[0].group_id, found[1].user.id)

    async def _ban(self, argument: str) -> None:
        if found := await self._member(argument):
            await self._client.api.ban(found[0].group_id, found[1].user.id)

    async def _mute(self, argument: str) -> None:
        name, _, minutes = argument.partition(" ")
        if minutes and not minutes.strip().isdecimal():
            raise Usage
        if found := await self._member(name):
            until = _now_ms() + int(minutes or MUTE_MINUTES) * 60_000
            await self._client.api.update_member(found[0].group_id, found[1].user.id, {"muted_until": until})

    async def _unmute(self, argument: str) -> None:
        if found := await self._member(argument):
            await self._client.api.update_member(found[0].group_id, found[1].user.id, {"muted_until": None})

    async def _admin(self, argument: str) -> None:
        if found := await self._member(argument):
            await self._client.api.update_member(found[0].group_id, found[1].user.id, {"role": "admin"})

    async def _disband(self, argument: str) -> None:
        if room := await self._room():
            name = room.view.group.name
            if argument != name:
                await self._say(notice(self._text("confirm_disband", name=name)))
                return
            await self._client.api.disband(room.group_id)

    # Helpers

    async def _say(self, *lines: RenderableType) -> None:
        await self._screen.show(*lines)

    async def _enter(self, group: Group) -> None:
        await self._doors.enter(self._client.learn_group(group))

    async def _room(self) -> Room | None:
        if self._doors.room is None:
            await self._say(problem(self._text("no_open_group")))
        return self._doors.room

    async def _member(self, name: str) -> tuple[Room, Member] | None:
        """A member of the open group by user name."""
        if not name:
            raise Usage
        room = await self._room()
        if room is None:
            return None
        wanted, cursor = name.removeprefix("@").casefold(), None
        while True:
            page = await self._client.api.members(room.group_id, cursor, MEMBERS_SHOWN)
            for member in page.items:
                if member.user.username.casefold() == wanted:
                    return room, member
            cursor = page.next
            if cursor is None:
                await self._say(problem(self._text("no_member", name=name)))
                return None


def _now_ms() -> int:
    return round(time() * 1000)
