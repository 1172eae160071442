"""Keeps one user connected: connect, hello, group list, resume; and again, with backoff, whenever the connection ends."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

from app.client import wire
from app.client.backoff import Waits
from app.client.dispatch import Dispatcher
from app.client.errors import ClientError, SessionEnded, Unreachable
from app.client.events import EventQueue, State, StateChanged
from app.client.groups import GroupBook
from app.client.inbox import Inbox
from app.client.options import ClientOptions
from app.client.socket import Closed, Socket
from app.errors import AppError, Unauthorized
from app.protocol import frames

OpenSocket = Callable[[], Awaitable[Socket]]


class Session:
    """Owns the current socket. `state` is what a status line shows. `on_drained`: the server wants us elsewhere."""

    def __init__(
        self,
        open_socket: OpenSocket,
        on_drained: Callable[[], None],
        dispatcher: Dispatcher,
        inbox: Inbox,
        groups: GroupBook,
        queue: EventQueue,
        options: ClientOptions,
        draw: random.Random,
    ) -> None:
        self._open_socket = open_socket
        self._on_drained = on_drained
        self._dispatcher = dispatcher
        self._inbox = inbox
        self._groups = groups
        self._queue = queue
        self._options = options
        backoff = wire.Backoff(options.backoff_base_ms, options.backoff_max_ms, options.backoff_jitter)
        self._waits = Waits(backoff, retry_after_max_s=options.retry_after_max_s, draw=draw)
        self._socket: Socket | None = None
        self._up = asyncio.Event()
        self._epoch: str | int | None = None
        self._prepare_error: Exception | None = None
        self._ended: ClientError | None = None
        self.focus: str | None = None
        self.last_error: Exception = Unreachable("no connection to the server")
        self.state: State = "connecting"

    async def online(self) -> Socket:
        """The current connection, as soon as there is one. Raises what the session ended with."""
        while self._socket is None or self._socket.closed:
            if self._ended is not None:
                raise self._ended
            self._up.clear()
            await self._up.wait()
        return self._socket

    def end(self, error: ClientError) -> None:
        """No connection comes any more: everybody who waits for one learns why."""
        self._ended = error
        self._socket = None
        self._up.set()
        self._change("ended", str(error))

    async def run(self) -> NoReturn:
        """Until cancelled. Raises SessionEnded when reconnecting is pointless."""
        while True:
            self._change("connecting")
            retry_after_ms: int | None = None
            try:
                socket = await self._open_socket()
            except SessionEnded:
                raise
            except (AppError, ClientError) as error:
                self.last_error = error
                retry_after_ms = error.retry_after_ms if isinstance(error, AppError) else None
            else:
                closed = await self._live(socket)
                if closed.final:
                    raise SessionEnded(closed.code or 0, closed.reason)
                if closed.code == frames.CLOSE_DRAIN:
                    self._on_drained()
                retry_after_ms, self._dispatcher.drain_ms = self._dispatcher.drain_ms, None
                if isinstance(self._prepare_error, Unauthorized):
                    raise SessionEnded(self._prepare_error.status, self._prepare_error.message)
                if isinstance(self._prepare_error, AppError):
                    retry_after_ms = self._prepare_error.retry_after_ms
                self.last_error = self._prepare_error or Unreachable(
                    f"the connection ended: {closed.reason or 'no reason given'} ({closed.code or 'no close code'})"
                )
            wait_s = self._waits.next_s(retry_after_ms)
            self._change("waiting", str(self.last_error), wait_s)
            await asyncio.sleep(wait_s)

    async def _live(self, socket: Socket) -> Closed:
        """One connection from hello to close."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._waits.backoff = socket.hello.backoff
        self._prepare_error = None
        try:
            async with asyncio.TaskGroup() as tasks:
                preparing = tasks.create_task(self._prepare(socket))
                closed = await socket.run(self._dispatcher)
                preparing.cancel()
        finally:
            self._socket = None
        if loop.time() - started >= self._options.stable_s:
            self._waits.reset()
        return closed

    async def _prepare(self, socket: Socket) -> None:
        """From hello to online; any failure closes the connection and counts as one of connecting."""
        hello = socket.hello
        self._groups.user_id = hello.user_id
        try:
            known = self._epoch == hello.epoch
            if not known:
                if self._epoch is not None:
                    self._inbox.forget_all()
                    self._groups.forget()
                await self._groups.refresh()
                self._epoch = hello.epoch
            all_known = await self._resume(socket)
            if self.focus is not None:
                focus = self.focus
                await socket.request(lambda number: frames.Focus(id=number, group_id=focus))
        except (AppError, ClientError) as error:
            self._prepare_error = error
            await socket.close()
        else:
            if known or not all_known:
                # What happened to the groups while we were away; connected first, then the list.
                self._groups.want_refresh()
            self._socket = socket
            self._up.set()
            self._change("online")

    async def _resume(self, socket: Socket) -> bool:
        pulls = self._inbox.begin_pulls()
        names = list(pulls)
        all_known = True
        for start in range(0, len(names), self._options.pull_groups):
            asked = {group_id: pulls[group_id] for group_id in names[start : start + self._options.pull_groups]}
            cursors = {group_id: frames.Cursor(pull.after) for group_id, pull in asked.items()}
            answer = await self._ask_resume(socket, cursors)
            all_known &= self._inbox.on_resumed(asked, answer)
        return all_known

    async def _ask_resume(self, socket: Socket, cursors: dict[str, frames.Cursor]) -> dict[str, wire.Resumed]:
        return wire.resume_answer(await socket.request(lambda number: frames.Resume(id=number, groups=cursors)))

    def _change(self, state: State, detail: str = "", wait_s: float = 0.0) -> None:
        self.state = state
        self._queue.offer(StateChanged(state, detail, wait_s))
