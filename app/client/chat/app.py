"""The chat itself: what is typed goes up, what happens comes down, until the person leaves."""

import asyncio
import sys

from prompt_toolkit.formatted_text import StyleAndTextTuples
from rich.console import Console
from yarl import URL

from app.client.chat.bottom import Bottom
from app.client.chat.commands import Commands, Leave
from app.client.chat.login import log_in
from app.client.chat.names import Names
from app.client.chat.render import harmless, moment, notice, problem
from app.client.chat.room import Room
from app.client.chat.screen import Screen
from app.client.chat.texts import Texts, language_of
from app.client.client import Client
from app.client.errors import ClientError, ConnectionLost, SessionEnded, Unreachable
from app.client.events import (
    Event,
    Forgotten,
    GroupLeft,
    GroupUpdated,
    MemberChanged,
    MessageReceived,
    StateChanged,
    Typing,
)
from app.client.groups import GroupView
from app.client.models import User
from app.errors import AppError, ConfigError

TYPING_EVERY_S = 3
"""Telling others that we type more often would only cost."""
LEAVE_S = 5
"""Who leaves waits this long for messages on their way."""
QUIET_S = 0.3
"""The first of it without a word."""
READ_EVERY_S = 1
"""Read marks are told at most this often."""


async def run_chat(url: str, user: str | None) -> None:
    """Log in and chat. Raises ConfigError with one sentence when that cannot begin or go on."""
    text = Texts(language_of())
    console = Console(highlight=False)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(text("no_terminal"))
    if URL(url).scheme not in ("http", "https") or not URL(url).host:
        raise ConfigError(text("bad_url", url=url))
    try:
        login = await log_in(url, user, console, text)
        with console.status(text("connecting")) as status:
            async with Client(url, login.token, ws_url=login.gateway.url) as client:
                status.stop()
                await Chat(client, login.user, console, text).run(url)
    except (EOFError, KeyboardInterrupt):
        pass
    except SessionEnded as error:
        raise ConfigError(text.error(error)) from None
    except (Unreachable, ConnectionLost):
        raise ConfigError(text("no_server", url=url)) from None
    except (AppError, ClientError) as error:
        raise ConfigError(text.error(error)) from None
    console.print(notice(text("bye")))


class Chat:
    """One person's chat; `room` is the open group."""

    def __init__(self, client: Client, me: User, console: Console, text: Texts) -> None:
        self._client = client
        self._text = text
        self._names = Names(client.api, me)
        self._bottom = Bottom(client, self._names, me.name, text)
        self.room: Room | None = None
        self._screen = Screen(
            console, prompt=self._prompt, status=self._status, complete=self._complete, on_typing=self._on_typing
        )
        self._commands = Commands(client, self._screen, self._names, self, text)
        self._sending: set[asyncio.Task[None]] = set()
        self._typing = asyncio.Event()
        self._shown = asyncio.Event()

    async def run(self, url: str) -> None:
        """Until the person leaves. Raises SessionEnded."""
        await self._screen.show(notice(self._text("welcome", url=url)))
        await self._commands.list_groups()
        self._screen.flush()
        try:
            async with asyncio.TaskGroup() as tasks:
                work = [self._screen.run(), self._read_events(), self._tell_typing(), self._tell_read()]
                background = [tasks.create_task(coroutine) for coroutine in work]
                with self._screen.keyboard():
                    await self._read_lines(tasks)
                await self._finish_sending()
                for task in background:
                    task.cancel()
        except* SessionEnded as group:
            self._screen.flush()
            raise group.exceptions[0] from None

    async def enter(self, view: GroupView) -> None:
        """Open a group. Raises AppError, ClientError."""
        room = Room(view, self._client, self._screen, self._names, self._text)
        await room.open()
        self.room = room
        self._bottom.stopped_typing()
        self._shown.set()
        await self._client.focus(room.group_id)

    # Up

    async def _read_lines(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            try:
                line = (await self._screen.read()).strip()
            except EOFError:
                return
            if line.startswith("/") and not line.startswith("//"):
                try:
                    await self._commands.run(line)
                except Leave:
                    return
                except SessionEnded:
                    raise
                except (AppError, ClientError) as error:
                    await self._screen.show(problem(self._text.error(error)))
            elif line and self.room is None:
                await self._screen.show(problem(self._text("no_open_group")))
            elif line and self.room is not None:
                sending = tasks.create_task(self._send(self.room.group_id, line.removeprefix("/")))
                self._sending.add(sending)
                sending.add_done_callback(self._sending.discard)

    async def _finish_sending(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending, timeout=QUIET_S)
        if not self._sending:
            return
        await self._screen.show(notice(self._text("leaving", count=len(self._sending), seconds=LEAVE_S)))
        self._screen.flush()
        _, pending = await asyncio.wait(self._sending, timeout=LEAVE_S)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
            self._screen.flush()

    async def _send(self, group_id: str, body: str) -> None:
        """Typing goes on meanwhile; the message itself appears when it comes back like everybody's."""
        self._bottom.sending += 1
        try:
            await self._client.send(group_id, body)
        except SessionEnded:
            raise
        except asyncio.CancelledError:
            reason = self._text("no_answer_yet")
            await self._screen.show(problem(self._text("maybe_sent", reason=reason, text=body)))
        except (AppError, ClientError) as error:
            unknown = isinstance(error, ConnectionLost) or (isinstance(error, AppError) and error.outcome == "unknown")
            key = "maybe_sent" if unknown else "not_sent"
            await self._screen.show(problem(self._text(key, reason=self._text.error(error), text=body)))
        finally:
            self._bottom.sending -= 1

    def _on_typing(self, line: str) -> None:
        if line and not line.startswith("/") and self.room is not None:
            self._typing.set()

    async def _tell_typing(self) -> None:
        while True:
            await self._typing.wait()
            self._typing.clear()
            if self.room is not None:
                try:
                    await self._client.typing(self.room.group_id)
                except (AppError, ConnectionLost):
                    # Only a courtesy.
                    pass
            await asyncio.sleep(TYPING_EVERY_S)

    async def _tell_read(self) -> None:
        told: tuple[str, int] | None = None
        while True:
            await self._shown.wait()
            self._shown.clear()
            room = self.room
            if room is not None and room.shown and (room.group_id, room.shown) != told:
                wanted = (room.group_id, room.shown)
                try:
                    await self._client.read(*wanted)
                    told = wanted
                except SessionEnded:
                    raise
                except (AppError, ClientError):
                    # Said again with the next message; the server keeps the highest.
                    pass
            await asyncio.sleep(READ_EVERY_S)

    # Down

    async def _read_events(self) -> None:
        async for event in self._client.events():
            await self._on_event(event)
            self._screen.refresh()

    async def _on_event(self, event: Event) -> None:
        now = asyncio.get_running_loop().time()
        match event:
            case MessageReceived(message):
                if self.room is not None and message.group_id == self.room.group_id:
                    self._bottom.stopped_typing(message.sender_id)
                    await self.room.on_message(message)
                    self._shown.set()
            case StateChanged():
                self._bottom.on_state(event, now)
            case Typing(group_id, user_id):
                if self.room is not None and group_id == self.room.group_id and user_id != self._client.user_id:
                    await self._names.look_up(group_id, {user_id})
                    self._bottom.on_typing(user_id, now)
            case MemberChanged():
                await self._on_member(event)
            case GroupUpdated(group):
                await self._in_room(group.id, self._text("group_updated", name=_about(group.name, group.announcement)))
            case GroupLeft(group_id, reason):
                await self._on_left(group_id, reason)
            case Forgotten(group_id):
                if self.room is not None and group_id == self.room.group_id:
                    self.room.restart()
                    await self._screen.show(notice(self._text("restored")))
            case _:
                # Read marks of others and a changed list show only in the status line.
                pass

    async def _on_member(self, event: MemberChanged) -> None:
        self._names.learn(event.user)
        if f"member_{event.change}" in self._text and not (
            event.change == "joined" and event.user.id == self._client.user_id
        ):
            time = moment(event.muted_until) if event.muted_until is not None else ""
            role = self._text(f"role_{event.role}") if event.role else ""
            line = self._text(f"member_{event.change}", name=event.user.name, time=time, role=role)
            await self._in_room(event.group_id, line)

    async def _on_left(self, group_id: str, reason: str) -> None:
        if self.room is not None and group_id == self.room.group_id:
            key = "left" if reason == "left" else f"left_{reason}"
            name = self.room.view.group.name
            self.room = None
            await self._screen.show(notice(self._text(key if key in self._text else "left_gone", name=name)))

    async def _in_room(self, group_id: str, line: str) -> None:
        if self.room is not None and group_id == self.room.group_id:
            await self._screen.show(notice(line))

    # The bottom

    def _prompt(self) -> StyleAndTextTuples:
        if self.room is None:
            return [("class:room", "> ")]
        return [("class:room", f"{harmless(self.room.view.group.name)} > ")]

    def _status(self) -> StyleAndTextTuples:
        return self._bottom.line(self.room, asyncio.get_running_loop().time())

    def _complete(self, line: str) -> list[str]:
        return list(self._commands.complete(line))


def _about(name: str, announcement: str) -> str:
    return f"{name} · {announcement}" if announcement else name
