"""`GET /ws`: authenticate, upgrade, register, say hello, read frames, clean up."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import count
from time import monotonic, time

import structlog
from aiohttp import WSMsgType, web

from app.errors import AppError
from app.metrics import Metrics
from app.protocol import frames
from app.protocol.endpoint import Principal
from app.web.gateway.admission import Admission
from app.web.gateway.commands import Commands
from app.web.gateway.connection import Connection, bound_kernel
from app.web.gateway.hub import Hub
from app.web.gateway.loader import Loader
from app.web.gateway.sweeper import Closer
from app.web.gateway.upgrade import socket_for, transport_of
from app.web.middlewares import CLIENT_IP

log = structlog.get_logger(__name__)

Authenticate = Callable[[web.Request], Awaitable[Principal]]


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Settings of connections."""

    max_frame_bytes: int
    close_timeout_s: float
    buffer_bytes: int
    held_frames_max: int
    frames_per_second: int


class Gateway:
    """The WebSocket endpoint."""

    def __init__(
        self,
        authenticate: Authenticate,
        admission: Admission,
        hub: Hub,
        loader: Loader,
        commands: Commands,
        closer: Closer,
        metrics: Metrics,
        epoch: Callable[[], Awaitable[str]],
        hello: Mapping[str, object],
        limits: SocketLimits,
        registered: Callable[[], bool],
    ) -> None:
        """`registered` says whether users belong here; without a cluster always."""
        self._authenticate = authenticate
        self._admission = admission
        self._hub = hub
        self._loader = loader
        self._commands = commands
        self._closer = closer
        self._metrics = metrics
        self._read_epoch = epoch
        self._hello = hello
        self._limits = limits
        self._registered = registered
        self._numbers = count(1)
        self._epoch = ""
        self.accepting = False
        """True between start and shutdown."""

    async def start(self) -> None:
        """Read the epoch of the history, then accept connections. Raises Busy when the database is away."""
        self._epoch = await self._read_epoch()
        self.accepting = True

    def routes(self) -> list[web.RouteDef]:
        """`/ws`; with a node id for proxies that route by it."""
        return [web.get("/ws", self.handle), web.get("/ws/{node_id}", self.handle)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection until it ends."""
        self._check_open()
        with self._admission.arriving(request[CLIENT_IP]):
            principal = await self._authenticate(request)
            # Before the admission, which is for who wants a connection.
            ws = socket_for(
                request, max_frame_bytes=self._limits.max_frame_bytes, close_timeout_s=self._limits.close_timeout_s
            )
            # A store may have been slow: whoever let all connections go meanwhile did not know of this one.
            self._check_open()
            with self._admission.admitted(principal.user_id):
                await ws.prepare(request)
                await self._serve(request, ws, principal)
                return ws

    async def _serve(self, request: web.Request, ws: web.WebSocketResponse, principal: Principal) -> None:
        transport = transport_of(request)
        bound_kernel(transport, self._limits.buffer_bytes)
        connection = Connection(
            next(self._numbers),
            ws,
            transport,
            principal,
            self._hub.outlet,
            self._metrics,
            buffer_bytes=self._limits.buffer_bytes,
            held_max=self._limits.held_frames_max,
            frames_per_second=self._limits.frames_per_second,
        )
        self._hub.register(connection)
        try:
            if await self._welcome(connection):
                await self._read(connection)
        finally:
            self._hub.remove(connection)

    def _check_open(self) -> None:
        """Raises Busy: an answer that costs nothing."""
        if not self.accepting:
            raise self._admission.refusal("draining", "the server is going away; connect again")
        if not self._registered():
            raise self._admission.refusal("unregistered", "this gateway has lost its cluster; try another")

    async def _welcome(self, connection: Connection) -> bool:
        """Join the groups, then say hello: what a client reads after hello cannot be older than what is pushed to it."""
        try:
            welcome = await self._loader.load(connection.principal)
        except AppError as error:
            connection.on_failure(None, error)
            self._closer.close(connection, frames.CLOSE_GOING_AWAY, "the server cannot serve you now")
            await self._read(connection)
            return False
        if not welcome.valid:
            self._closer.close(connection, frames.CLOSE_REVOKED, "the session has ended")
            await self._read(connection)
            return False
        if connection.gone:
            # It gave up while the store was slow. Whoever came after it is the newer one.
            await self._read(connection)
            return False
        self._hub.join(connection, welcome.memberships)
        fields = {
            "session": str(connection.principal.sid),
            "user_id": str(connection.principal.user_id),
            "server_time": round(time() * 1000),
            "epoch": self._epoch,
        }
        connection.send(frames.event("hello", fields | dict(self._hello)))
        return True

    async def _read(self, connection: Connection) -> None:
        """Frames in the order of arrival, until the socket closes."""
        ws = connection.ws
        while True:
            message = await ws.receive()
            connection.last_seen = monotonic()
            if message.type is WSMsgType.TEXT:
                if not (connection.closing or connection.leaving):
                    await self._commands.dispatch(connection, message.data)
            elif message.type is WSMsgType.PING:
                connection.pong(message.data)
            elif message.type is WSMsgType.BINARY:
                self._closer.close(connection, frames.CLOSE_PROTOCOL, "send text frames")
            elif message.type is not WSMsgType.PONG:
                return
            # One frame a turn: many in one segment must not keep others waiting, and answers leave before the next is looked at.
            await asyncio.sleep(0)
