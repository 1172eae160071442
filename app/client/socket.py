"""One WebSocket to a gateway: hello, requests with their answers, heartbeats. It lives once; the session opens the next one."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import msgspec

from app.client import wire
from app.client.api import retry_after_ms
from app.client.errors import ClientError, ConnectionLost, SessionEnded, Unreachable
from app.client.options import ClientOptions
from app.errors import AppError, BadRequest, Busy, SendTimeout
from app.protocol import frames

MAX_FRAME_BYTES = 65_536
"""Protocol version 1 closes a connection that sends more."""

MakeFrame = Callable[[int], frames.ClientFrame]
"""Builds a request once its id is known."""


@dataclass(frozen=True, slots=True)
class Closed:
    """How a connection ended; code None: without a close frame."""

    code: int | None
    reason: str

    @property
    def final(self) -> bool:
        """4500 to 4999: do not come back."""
        return self.code is not None and 4500 <= self.code <= 4999


class Listener(Protocol):
    """Gets every event of a connection, in order. Must neither block nor raise."""

    def on_event(self, event: wire.ServerEvent) -> None:
        """One frame without an id."""


class Socket:
    """An open connection whose `hello` has come."""

    def __init__(
        self, ws: aiohttp.ClientWebSocketResponse, hello: wire.Hello, options: ClientOptions, draw: random.Random
    ) -> None:
        self.hello = hello
        self._ended = asyncio.Event()
        self._ws = ws
        self._options = options
        self._draw = draw
        self._id = 0
        self._pending: dict[int, asyncio.Future[str]] = {}

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._ended.is_set()

    @classmethod
    async def open(
        cls, http: aiohttp.ClientSession, url: str, token: str, options: ClientOptions, draw: random.Random
    ) -> "Socket":
        """Connect and wait for `hello`.

        Raises Unreachable, Busy (with the server's wait), SessionEnded (the credential is refused).
        """
        ws: aiohttp.ClientWebSocketResponse | None = None
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                ws = await http.ws_connect(
                    url,
                    protocols=(frames.SUBPROTOCOL,),
                    headers={"Authorization": f"Bearer {token}"},
                    timeout=aiohttp.ClientWSTimeout(ws_close=options.close_timeout_s),
                    max_msg_size=options.max_frame_bytes,
                )
                hello = await _hello(ws)
        except aiohttp.WSServerHandshakeError as error:
            raise _refused(error) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            await _abandon(ws)
            raise Unreachable(f"no server answers at {url}") from error
        except (ClientError, asyncio.CancelledError):
            await _abandon(ws)
            raise
        return cls(ws, hello, options, draw)

    async def run(self, listener: Listener) -> Closed:
        """Read until the connection ends; every request still waiting then fails with ConnectionLost."""
        try:
            async with asyncio.TaskGroup() as tasks:
                beat = tasks.create_task(self._beat())
                closed = await self._read(listener)
                beat.cancel()
        finally:
            self._end()
            await self._ws.close()
        return closed

    async def close(self) -> None:
        """Say goodbye; `run` returns."""
        self._end()
        await self._ws.close()

    async def request(self, make: MakeFrame, timeout_s: float | None = None) -> str:
        """Send a request and wait for its `ok` frame, returned as text.

        Raises the server's AppError, ConnectionLost (outcome unknown), SendTimeout (no answer), BadRequest or Busy (not sent).
        """
        if self.closed:
            raise ConnectionLost("the connection is closed")
        if len(self._pending) >= self._options.max_requests:
            raise Busy("too many requests wait for their answer; try again shortly")
        self._id += 1
        number = self._id
        text = encode(make(number))
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            async with asyncio.timeout(timeout_s or self._options.request_timeout_s):
                await self._write(text)
                return await answer
        except TimeoutError:
            raise SendTimeout("the server did not answer in time") from None
        finally:
            self._pending.pop(number, None)
            if answer.done() and not answer.cancelled():
                # The write may have failed first; then nobody else looks at the answer.
                answer.exception()

    async def cast(self, frame: frames.ClientFrame) -> None:
        """Send a frame that has no reply. Raises ConnectionLost."""
        await self._write(encode(frame))

    async def _write(self, text: str) -> None:
        try:
            async with asyncio.timeout(self._options.request_timeout_s):
                await self._ws.send_str(text)
        except (aiohttp.ClientError, OSError) as error:
            # At once, or a sender that tries again would meet the same dead connection.
            self._end()
            raise ConnectionLost("the connection ended while sending") from error

    async def _read(self, listener: Listener) -> Closed:
        while True:
            message = await self._ws.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                try:
                    frame = wire.decode(message.data)
                except msgspec.DecodeError:
                    # One frame of a later version must not end a connection that works otherwise.
                    continue
                if isinstance(frame, wire.Reply):
                    self._on_reply(frame)
                elif frame is not None:
                    listener.on_event(frame)
            elif message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
                code = message.data if message.type is aiohttp.WSMsgType.CLOSE else self._ws.close_code
                return Closed(code, message.extra or "")
            elif message.type is aiohttp.WSMsgType.ERROR:
                return Closed(self._ws.close_code, str(self._ws.exception() or "broken frame"))

    def _on_reply(self, reply: wire.Reply) -> None:
        waiting = None if reply.id is None else self._pending.get(reply.id)
        if waiting is None or waiting.done():
            return
        if isinstance(reply.result, AppError):
            waiting.set_exception(reply.result)
        else:
            waiting.set_result(reply.result)

    async def _beat(self) -> None:
        """A dead peer is noticed within two heartbeats; the first one comes at a random moment, so that clients spread."""
        heartbeat_s = self.hello.heartbeat_s
        wait_s = heartbeat_s * self._draw.random()
        while not self.closed:
            try:
                async with asyncio.timeout(wait_s):
                    await self._ended.wait()
            except TimeoutError:
                wait_s = heartbeat_s
                try:
                    await self.request(lambda number: frames.Ping(id=number), heartbeat_s)
                except (SendTimeout, ConnectionLost):
                    self._end()
                except AppError:
                    # Refused for now (rate limit): the answer shows that the peer lives.
                    pass
        await self._ws.close(code=aiohttp.WSCloseCode.GOING_AWAY)

    def _end(self) -> None:
        self._ended.set()
        waiting = list(self._pending.values())
        for answer in waiting:
            if not answer.done():
                answer.set_exception(ConnectionLost("the connection ended before the answer"))


def encode(frame: frames.ClientFrame) -> str:
    """A frame as text. Raises BadRequest for one that the server would close the connection for."""
    content = msgspec.json.encode(frame)
    if len(content) > MAX_FRAME_BYTES:
        raise BadRequest(f"the message is too long: {len(content)} bytes, at most {MAX_FRAME_BYTES}")
    return content.decode()


async def _hello(ws: aiohttp.ClientWebSocketResponse) -> wire.Hello:
    if ws.protocol != frames.SUBPROTOCOL:
        raise Unreachable(f"the server does not speak {frames.SUBPROTOCOL}")
    while True:
        message = await ws.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            closed = Closed(message.data, message.extra or "") if message.type is aiohttp.WSMsgType.CLOSE else None
            if closed is not None and closed.code is not None and closed.final:
                raise SessionEnded(closed.code, closed.reason)
            raise Unreachable("the server closed the connection before its hello")
        try:
            hello = wire.decode(message.data)
        except msgspec.DecodeError as error:
            raise Unreachable(f"the server's hello cannot be read: {error}") from error
        if isinstance(hello, wire.Hello):
            return hello
        # An event may overtake the hello; what it tells is read from the server right after.


async def _abandon(ws: aiohttp.ClientWebSocketResponse | None) -> None:
    if ws is not None:
        await ws.close()


def _refused(error: aiohttp.WSServerHandshakeError) -> Exception:
    if error.status in (401, 403):
        return SessionEnded(error.status, "the credential is not accepted; log in again")
    if error.status in (429, 503):
        wait = None if error.headers is None else error.headers.get("Retry-After")
        return Busy("the server takes no more connections now", retry_after_ms=retry_after_ms(wait))
    return Unreachable(f"the server refused the connection with status {error.status}")
