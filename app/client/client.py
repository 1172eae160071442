"""The client: one user, connected as long as it is open. `Client` says how to use it."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self
from uuid import UUID

import aiohttp

from app.client import wire
from app.client.api import Api
from app.client.dispatch import Dispatcher
from app.client.errors import ClientError, SessionEnded, Unreachable
from app.client.events import Event, EventQueue, How, State
from app.client.gateways import Gateways
from app.client.groups import GroupBook, GroupView
from app.client.hooks import Hooks, Outgoing
from app.client.inbox import Inbox
from app.client.models import Group
from app.client.options import ClientOptions
from app.client.outbox import Outbox
from app.client.pull import Agenda, Puller
from app.client.session import Session
from app.client.socket import Socket
from app.errors import AppError
from app.protocol import frames
from app.protocol.frames import Message


class Client:
    """Opening it waits for the first connection; closing it says goodbye and cancels what runs.

        async with Client("http://localhost:8080", token) as client:
            sent = await client.send(group_id, "hello")
            async for event in client.events():
                ...

    `url` is the server's address (http or https), `ws_url` the gateway that the login named; without it the server is asked, and
    after every failure. `tls` is for servers whose certificate the system does not know. `seed` makes waits repeatable.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ws_url: str | None = None,
        options: ClientOptions | None = None,
        hooks: Hooks | None = None,
        tls: ssl.SSLContext | None = None,
        seed: int | None = None,
    ) -> None:
        self.options = options or ClientOptions()
        self._url = url
        self._ws_url = ws_url
        self._token = token
        self._hooks = hooks or Hooks()
        self._tls = tls
        self._draw = random.Random(seed)  # noqa: S311 - spreads waits, guards nothing
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect. Raises Unreachable or the server's refusal within `first_connect_s`, SessionEnded for a bad token."""
        options, draw = self.options, self._draw
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls or True))
        self.api = Api(self._http, self._url, self._token, timeout_s=options.http_timeout_s)
        self._gateways = Gateways(self.api, self._url, self._ws_url)
        self._queue = EventQueue(options.max_events)
        agenda = Agenda(draw)
        self._inbox = Inbox(
            self._queue, options, want=agenda.want, on_message=self._on_message, on_unknown=self._on_unknown
        )
        self._groups = GroupBook(self.api, self._inbox, self._queue, options, draw)
        dispatcher = Dispatcher(self._inbox, self._groups, self._queue)
        self._session = Session(
            self._open_socket,
            self._gateways.failed,
            dispatcher,
            self._inbox,
            self._groups,
            self._queue,
            options,
            draw,
        )
        self._outbox = Outbox(self._session, self._hooks, options, draw)
        self._puller = Puller(self.api, self._inbox, self._queue, agenda, options, draw, on_unknown=self._on_unknown)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="client")
        try:
            async with asyncio.timeout(options.first_connect_s):
                await self._session.online()
        except TimeoutError:
            await self._close()
            raise self._session.last_error from None
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye."""
        await self._close()

    # What an application does

    @property
    def user_id(self) -> str:
        """Who we are."""
        return self._groups.user_id

    @property
    def state(self) -> State:
        """The connection now."""
        return self._session.state

    @property
    def groups(self) -> list[GroupView]:
        """Our groups, by name."""
        return sorted(self._groups.views.values(), key=lambda view: (view.group.name.casefold(), int(view.group.id)))

    async def send(self, group_id: str, text: str, *, client_msg_id: UUID | None = None) -> wire.Sent:
        """Send a text; returns once it is stored. Errors: see `Outbox.send`."""
        outgoing = Outgoing(group_id, text) if client_msg_id is None else Outgoing(group_id, text, client_msg_id)
        return await self._outbox.send(outgoing)

    async def events(self) -> AsyncIterator[Event]:
        """Everything that happens. Ends when the client is closed; raises SessionEnded when the server ended the session."""
        while (event := await self._queue.get()) is not None:
            yield event

    async def read(self, group_id: str, seq: int) -> None:
        """Everything up to `seq` is read. Raises AppError, ClientError."""
        socket = await self._session.online()
        await socket.request(lambda number: frames.Read(id=number, group_id=group_id, seq=seq))
        self._groups.on_read(group_id, seq)

    async def focus(self, group_id: str | None) -> None:
        """The group on screen, also after a reconnect. Raises AppError, ClientError."""
        self._session.focus = group_id
        socket = await self._session.online()
        await socket.request(lambda number: frames.Focus(id=number, group_id=group_id))

    async def typing(self, group_id: str) -> None:
        """Tell the group that we are typing; lost without a word while there is no connection."""
        if self._session.state == "online":
            socket = await self._session.online()
            await socket.cast(frames.Typing(group_id=group_id))

    def learn_group(self, group: Group) -> GroupView:
        """Take over the answer of `api.create_group` or `api.join` without waiting for its event."""
        return self._groups.learn(group)

    async def refresh_groups(self) -> list[GroupView]:
        """Read the group list now. Raises AppError, ClientError."""
        await self._groups.refresh()
        return self.groups

    def _on_message(self, message: Message, how: How) -> None:
        self._groups.on_message(message)
        self._hooks.on_message(message, how)

    def _on_unknown(self) -> None:
        self._groups.want_refresh()

    async def _open_socket(self) -> Socket:
        url = await self._gateways.next_url()
        try:
            socket = await Socket.open(self._http, url, self._token, self.options, self._draw)
        except (AppError, ClientError):
            self._gateways.failed()
            raise
        self._gateways.worked(socket.hello.node)
        return socket

    async def _run(self) -> None:
        """The one background task: whatever ends it ends the client, and everybody who waits learns why."""
        end: ClientError = Unreachable("the client is closed")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._session.run())
                tasks.create_task(self._puller.run())
                tasks.create_task(self._groups.run())
        except* SessionEnded as group:
            end = next(error for error in group.exceptions if isinstance(error, SessionEnded))
        finally:
            self._session.end(end)
            self._queue.end(end if isinstance(end, SessionEnded) else None)

    async def _close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                await self._http.close()
                raise error
        await self._http.close()
