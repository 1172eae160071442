"""One WebSocket: a bounded outbox, one merged write per tick, and what a slow reader missed."""

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from time import monotonic, time

from aiohttp import web

from app.errors import AppError
from app.metrics import Metrics
from app.modules.messages.producer import answer_error
from app.protocol import frames, wsframe
from app.protocol.endpoint import Principal
from app.protocol.magpie_pb2 import Answer
from app.web.gateway.bucket import LocalBucket

WRITES_PER_TURN = 500
"""A socket write takes about 13 µs: this many keep one turn of the loop under 10 ms."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for 0 s: closing resets the connection."""


def bound_kernel(transport: asyncio.Transport, unsent_bytes: int) -> None:
    """Let the kernel hold no more than this beside what is on its way; else it takes 4 MB for a peer that does not read."""
    sock = transport.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with suppress(OSError):  # no TCP, or gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)


class Outlet:
    """Writes out every connection that queued something, once per tick."""

    def __init__(self) -> None:
        self._dirty: deque[Connection] = deque()
        self._scheduled = False
        self.turn_s = 0.0
        """Smoothed duration of a full round, in seconds: how long a fan-out takes now."""
        self._round_s = 0.0

    def add(self, connection: "Connection") -> None:
        """`connection` has something to write."""
        self._dirty.append(connection)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        start = monotonic()
        for _ in range(min(len(self._dirty), WRITES_PER_TURN)):
            self._dirty.popleft().write_out()
        self._round_s += monotonic() - start
        if self._dirty:
            asyncio.get_running_loop().call_soon(self._write)
            return
        self._scheduled = False
        self.turn_s = 0.8 * self.turn_s + 0.2 * self._round_s
        self._round_s = 0.0


class Connection:
    """State of one socket. All methods run on the event loop and never wait."""

    __slots__ = (
        "_buffer_bytes", "_bytes_while_slow", "_held", "_held_max", "_held_groups", "_metrics", "_missed", "_outbox", "_outlet", "_queued",
        "_transport", "closing", "focus", "frame_tokens", "groups", "joined", "last_ping", "last_seen",
        "leaving", "number", "principal", "slow_since", "unacked", "ws",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        ws: web.WebSocketResponse,
        transport: asyncio.Transport,
        principal: Principal,
        outlet: Outlet,
        metrics: Metrics,
        *,
        buffer_bytes: int,
        held_max: int,
        frames_per_second: int,
    ) -> None:
        self.number = number
        self.ws = ws
        self.principal = principal
        self.groups: set[int] = set()
        """Ids of the groups whose packets this connection gets; kept by the hub."""
        self.joined = False
        """Whether its session and its groups were read: before, nothing is pushed to it."""
        self.focus: int | None = None
        self.closing = False
        self.leaving = False
        """Asked to go: what it sends from now on is left to its next connection, which sends again what was not answered."""
        self.unacked = 0
        self.last_seen = self.last_ping = monotonic()
        self.slow_since: float | None = None
        self.frame_tokens = LocalBucket(frames_per_second, frames_per_second)
        self._transport = transport
        self._outlet = outlet
        self._metrics = metrics
        self._buffer_bytes = buffer_bytes
        self._held_max = held_max
        self._outbox: list[bytes] = []
        self._queued = False
        self._bytes_while_slow = 0
        self._missed: dict[int, int] = {}
        self._held: list[tuple[int, int, bytes]] = []
        self._held_groups: frozenset[int] = frozenset()

    # What goes out

    def send(self, payload: bytes) -> None:
        """Queue an answer or an addressed event (JSON); bounded by what the client may have un-answered."""
        self._queue(wsframe.text(payload))

    def push(self, group_id: int, first_seq: int, frame: bytes) -> bool:
        """Queue a group's messages from `first_seq` on (a complete WebSocket frame). False: the reader is slow, it gets a gap later."""
        if self.slow_since is not None:
            self._missed.setdefault(group_id, first_seq)
            return False
        if group_id in self._held_groups:
            if len(self._held) < self._held_max:
                self._held.append((group_id, first_seq, frame))
            else:
                self._missed.setdefault(group_id, first_seq)
            return True
        self._queue(frame)
        return True

    def push_event(self, frame: bytes, *, droppable: bool) -> bool:
        """Queue an event without seq. False: shed, because the reader is slow."""
        if self.slow_since is not None and droppable:
            return False
        self._queue(frame)
        return True

    def ping(self, now: float) -> None:
        """Ask for a sign of life; every WebSocket client answers by itself."""
        self.last_ping = now
        self._queue(wsframe.encode(wsframe.PING, b""))

    def pong(self, payload: bytes) -> None:
        """Answer a client's WebSocket ping."""
        self._queue(wsframe.encode(wsframe.PONG, payload))

    def _queue(self, frame: bytes) -> None:
        if self.closing:
            return
        self._outbox.append(frame)
        if self.slow_since is not None:
            self._bytes_while_slow += len(frame)
        if not self._queued:
            self._queued = True
            self._outlet.add(self)

    def write_out(self) -> None:
        """One write for everything queued; called by the outlet and before closing."""
        self._queued = False
        if self._outbox and not self._transport.is_closing():
            self._transport.write(b"".join(self._outbox) if len(self._outbox) > 1 else self._outbox[0])
            if self.slow_since is None and self._transport.get_write_buffer_size() > self._buffer_bytes:
                self.slow_since = monotonic()
                self._metrics.slow_consumers.inc()
        self._outbox.clear()

    # Slow readers

    @property
    def overrun(self) -> bool:
        """As much again was queued although pushing stopped: answers to requests, which the client does not read."""
        return self._bytes_while_slow > self._buffer_bytes

    def catch_up(self, pull_within_ms: int) -> bool:
        """A slow reader drained: announce what it missed. False while it still has not."""
        if self._transport.get_write_buffer_size() > 0:
            return False
        self.slow_since = None
        self._bytes_while_slow = 0
        self._announce_missed(pull_within_ms)
        return True

    def _announce_missed(self, pull_within_ms: int) -> None:
        missed, self._missed = self._missed, {}
        for group_id, from_seq in missed.items():
            if group_id in self.groups:
                self.send(frames.gap(group_id, from_seq, None, pull_within_ms))
        self._metrics.gaps_sent.inc(len(missed))

    # Resume

    def hold(self, group_ids: frozenset[int]) -> None:
        """Keep live packets of these groups back until `release`."""
        self._held_groups = group_ids

    def release(self, pull_within_ms: int) -> None:
        """The resume is answered: what came meanwhile follows; what did not fit is announced."""
        held, self._held, self._held_groups = self._held, [], frozenset()
        for group_id, first_seq, frame in held:
            if group_id in self.groups:
                self.push(group_id, first_seq, frame)
        if self.slow_since is None:
            self._announce_missed(pull_within_ms)

    # Answers to sends (the producer's Sender)

    def on_answer(self, request_id: int, answer: Answer) -> None:
        """The send is stored, or refused."""
        if answer.error_code:
            self.on_failure(request_id, answer_error(answer))
            return
        self._metrics.messages_acked.inc()
        self.send(frames.sent(request_id, answer.message_id, answer.seq, answer.ts))

    def on_failure(self, request_id: int | None, error: AppError) -> None:
        """A request failed."""
        self._metrics.frame_errors.labels(error.code).inc()
        self.send(frames.error(request_id, error))

    # End

    @property
    def gone(self) -> bool:
        """Whether either side has ended it."""
        return self.closing or self._transport.is_closing()

    def expired(self) -> bool:
        """Whether the session's token has ended."""
        return time() >= self.principal.expires_at

    def abort(self) -> None:
        """Cut the socket. Of a peer that does not read, the kernel forgets what it held too."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None and self._transport.get_write_buffer_size() > 0:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._transport.abort()
