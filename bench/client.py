"""One connection of the load generator: a picows listener with the client rules of the protocol, and little else."""

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from bench.history import Recorder, digest
from bench.plan import Member, Progress
from bench.wire import PING, Error, Gap, Hello, Message, Ok, Packet, Reader, body, send_frame, shown

TEXT = WSMsgType.TEXT
KEPT_MAX = 1000
"""Packets kept aside while a pull is on its way; beyond it they are dropped and pulled too."""

SLOW_BUFFER_BYTES = 4096


@dataclass(slots=True)
class Tally:
    """What the connections of a worker count together. Latencies are counts by microseconds."""

    reader: Reader
    recorder: Recorder | None
    fillers: Iterator[str]
    prefix: str
    """Of this worker's client_msg_ids: 23 characters of a UUID."""
    group_sizes: dict[int, int]
    pull: Callable[["Client", int, int], None]
    """Asks for what a client lacks of a group, after a random part of the given milliseconds."""
    counted_from_ns: int = 0
    """What was due earlier is the warm-up's."""
    progress: Progress = field(default_factory=Progress)
    warm_up_us: Counter[int] = field(default_factory=Counter)
    """Until the ack."""
    ack_us: Counter[int] = field(default_factory=Counter)
    delivery_us: Counter[int] = field(default_factory=Counter)
    late_us: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)
    not_sent: int = 0
    gaps: int = 0
    pulled: int = 0
    sends: int = 0


@dataclass(slots=True)
class Pending:
    """A send without an answer yet."""

    due_ns: int
    group: int
    op: int


class Client(WSListener):
    """A member's connection. `have` is the cursor: the highest seq of each group below which nothing is missing."""

    def __init__(self, member: Member, tally: Tally) -> None:
        self.member = member
        self.name = str(member.user_id)
        self.user_id = member.user_id
        self.have = dict.fromkeys(member.groups, 0)
        self.kept: dict[int, list[Packet]] = {}
        """Group → packets that wait for a pull; a group is in here while one is on its way."""
        self.pending: dict[int, Pending] = {}
        self.heartbeat_s = 0.0
        self.greeted: Callable[[], None] | None = None
        """Called at `hello`."""
        self.finished = False
        self._tally = tally
        self._transport: WSTransport | None = None
        self._requests = 0
        self._close_code = "no close frame"

    @property
    def connected(self) -> bool:
        """Whether frames can be sent."""
        return self._transport is not None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The upgrade is through; `hello` follows."""
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame of the server. An exception would close the connection, so frames that are none are counted."""
        if frame.msg_type != TEXT:
            if frame.msg_type == WSMsgType.CLOSE:
                self._on_close(transport, frame.get_payload_as_bytes())
            return
        now = time.monotonic_ns()
        try:
            read = self._tally.reader.read(frame.get_payload_as_bytes())
        except msgspec.DecodeError as error:
            self._tally.errors[f"undecodable frame: {error}"] += 1
            return
        match read:
            case Packet():
                self._on_packet(read, now)
            case Ok():
                self._on_ok(read, now)
            case Error():
                self._on_error(read)
            case Gap():
                self._tally.gaps += 1
                self._want(int(read.group_id), read.pull_within_ms)
            case Hello():
                self._on_hello(read)
            case None:
                pass

    def on_ws_disconnected(self, _: WSTransport) -> None:
        """The connection is gone; there is no reconnect, the closing is part of the result."""
        if self._transport is None:
            return
        self._transport = None
        tally = self._tally
        if self.heartbeat_s:
            tally.progress.connected -= 1
        if self.finished:
            return
        tally.closed[self._close_code] += 1
        if tally.recorder:
            tally.recorder.offline(self.name)
        for pending in self.pending.values():
            self._unknown(pending, "disconnected")
        self.pending.clear()

    def send(self, due_ns: int, group: int) -> None:
        """Send the message that was due at `due_ns`."""
        tally = self._tally
        transport = self._transport
        if transport is None:
            tally.not_sent += 1
            return
        tally.sends += 1
        self._requests += 1
        client_msg_id = f"{tally.prefix}-{tally.sends:012x}"
        text = body(due_ns, next(tally.fillers))
        op = 0
        if tally.recorder:
            op = tally.recorder.invoke(
                group=group,
                sender=self.user_id,
                client_msg_id=client_msg_id,
                digest=digest("text", text),
                conn=self.name,
                client=self.name,
            )
        self.pending[self._requests] = Pending(due_ns, group, op)
        if due_ns >= tally.counted_from_ns:
            tally.progress.sent += 1
            tally.late_us[(time.monotonic_ns() - due_ns) // 1000] += 1
        transport.send(TEXT, send_frame(self._requests, group, client_msg_id, text))

    def stop_reading(self) -> None:
        """From now on the server's frames stay with it, all but what fits into a small buffer of the kernel."""
        if self._transport is not None:
            transport = self._transport.underlying_transport
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
            transport.pause_reading()

    def ping(self) -> None:
        """Keep the connection alive."""
        if self._transport is not None:
            self._transport.send(TEXT, PING)

    def close(self) -> None:
        """End the connection; what was not answered stays unknown."""
        self.finished = True
        for pending in self.pending.values():
            self._unknown(pending, "unanswered")
        self.pending.clear()
        if self._transport is not None:
            self._transport.send_close()
            self._transport.disconnect()

    def take_pulled(self, group: int, messages: list[Message], last_seq: int, now: int) -> bool:
        """Messages that were pulled after the cursor; returns whether nothing is missing any more."""
        tally = self._tally
        if messages:
            if tally.recorder:
                items = shown(messages)
                tally.recorder.seen(client=self.name, conn=self.name, group=group, items=items, via="pull")
            packet = Packet(group, self.have[group], messages, recording=False)
            tally.pulled += len(messages)
            self._take(packet, now)
        if self.have[group] < last_seq:
            return False
        for packet in self.kept.pop(group, []):
            if packet.prev_seq <= self.have[group]:
                self._take(packet, now)
            else:
                self._want(group, 0)
        return True

    def _on_close(self, transport: WSTransport, payload: bytes) -> None:
        # Codes of applications are not in picows' enumeration.
        self._close_code = str(int.from_bytes(payload[:2], "big")) if len(payload) > 1 else "no code"
        transport.send_close()
        transport.disconnect()

    def _on_hello(self, hello: Hello) -> None:
        self.heartbeat_s = hello.heartbeat_s
        self._tally.progress.connected += 1
        if self._tally.recorder:
            self._tally.recorder.online(self.name, self.have)
        if self.greeted:
            self.greeted()

    def _on_packet(self, packet: Packet, now: int) -> None:
        group = packet.group
        tally = self._tally
        if tally.recorder and packet.shown is not None:
            tally.recorder.seen(client=self.name, conn=self.name, group=group, items=packet.shown)
        kept = self.kept.get(group)
        if kept is not None:
            if len(kept) < KEPT_MAX:
                kept.append(packet)
        elif packet.prev_seq <= self.have.get(group, 0):
            self._take(packet, now)
        else:
            self._want(group, 0)
            self.kept[group].append(packet)

    def _take(self, packet: Packet, now: int) -> None:
        """Show the newer items of a packet that follows the cursor."""
        have, me = self.have.get(packet.group, 0), self.user_id
        tally = self._tally
        for seq, sender, due in packet.items:
            if seq > have and sender != me and due >= tally.counted_from_ns:
                tally.progress.delivered += 1
                tally.delivery_us[(now - due) // 1000] += 1
        if packet.last_seq > have:
            self.have[packet.group] = packet.last_seq

    def _want(self, group: int, within_ms: int) -> None:
        if group not in self.kept:
            self.kept[group] = []
            self._tally.pull(self, group, within_ms)

    def _on_ok(self, ok: Ok, now: int) -> None:
        pending = self.pending.pop(ok.id, None)
        if pending is None:
            return
        tally = self._tally
        took_us = (now - pending.due_ns) // 1000
        if pending.due_ns >= tally.counted_from_ns:
            tally.progress.answered += 1
            tally.progress.acked += 1
            tally.progress.expected += tally.group_sizes[pending.group] - 1
            tally.ack_us[took_us] += 1
        else:
            tally.warm_up_us[took_us] += 1
        if tally.recorder:
            tally.recorder.ok(pending.op, ok.seq, ok.message_id)

    def _on_error(self, error: Error) -> None:
        tally = self._tally
        tally.errors[f"{error.code}/{error.outcome}"] += 1
        pending = self.pending.pop(error.id, None) if error.id is not None else None
        if pending is None:
            return
        if error.outcome == "none":
            self._answered(pending)
            if tally.recorder:
                tally.recorder.fail(pending.op, error.code)
        else:
            self._unknown(pending, error.code)

    def _unknown(self, pending: Pending, code: str) -> None:
        tally = self._tally
        self._answered(pending)
        if code in ("disconnected", "unanswered"):
            tally.errors[f"{code}/unknown"] += 1
        if tally.recorder:
            tally.recorder.info(pending.op, code)

    def _answered(self, pending: Pending) -> None:
        if pending.due_ns >= self._tally.counted_from_ns:
            self._tally.progress.answered += 1
