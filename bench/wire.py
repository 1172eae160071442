"""The generator's side of protocol version 1: frames it writes, and frames it reads, each distinct one only once."""

import msgspec

from bench.history import Item, digest

PACKETS_MAX = 4096
"""Decoded packets kept. The server sends the same bytes to all members of a group within moments of each other."""


class Ok(msgspec.Struct, tag_field="type", tag="ok"):
    """An answer; `seq` is 0 unless it acks a send."""

    id: int
    seq: int = 0
    message_id: str = ""


class Error(msgspec.Struct, tag_field="type", tag="error"):
    """A refusal."""

    code: str
    outcome: str
    id: int | None = None
    message: str = ""
    retry_after_ms: int | None = None


class Message(msgspec.Struct):
    """A stored message."""

    message_id: str
    seq: int
    sender_id: str
    client_msg_id: str
    kind: str
    body: str


class Messages(msgspec.Struct, tag_field="type", tag="messages"):
    """Pushed messages."""

    group_id: str
    prev_seq: int
    items: list[Message]


class Gap(msgspec.Struct, tag_field="type", tag="gap"):
    """Pull what was not pushed."""

    group_id: str
    from_seq: int
    pull_within_ms: int
    to_seq: int | None = None


class Hello(msgspec.Struct, tag_field="type", tag="hello"):
    """The first frame."""

    heartbeat_s: float


class _Head(msgspec.Struct):
    type: str


class Packet:
    """Messages as the load needs them; shared by all members who get them."""

    __slots__ = ("group", "prev_seq", "last_seq", "items", "shown")

    def __init__(self, group: int, prev_seq: int, messages: list[Message], *, recording: bool) -> None:
        self.group = group
        self.prev_seq = prev_seq
        self.items = [(m.seq, int(m.sender_id), due_of(m.body)) for m in messages]
        """(seq, sender, due in ns)."""
        self.last_seq = self.items[-1][0] if messages else prev_seq
        self.shown = shown(messages) if recording else None
        """What a recorder writes."""


_Decoded = Ok | Error | Messages | Gap | Hello
Frame = Ok | Error | Gap | Hello | Packet

_frames: msgspec.json.Decoder[_Decoded] = msgspec.json.Decoder(_Decoded)
_head = msgspec.json.Decoder(_Head)
_KNOWN = {"ok", "error", "messages", "gap", "hello"}
_PACKET = b'{"type":"messages"'


class Reader:
    """Decodes frames; `recording` also prepares packets for a history."""

    def __init__(self, *, recording: bool) -> None:
        self._recording = recording
        self._packets: dict[bytes, Packet] = {}

    def read(self, text: bytes) -> Frame | None:
        """A frame, or None for an event that this client does not know. Raises msgspec.DecodeError for what is no frame."""
        packet = self._packets.get(text) if text.startswith(_PACKET) else None
        if packet is not None:
            return packet
        try:
            frame = _frames.decode(text)
        except msgspec.ValidationError:
            if _head.decode(text).type in _KNOWN:
                raise
            return None
        if not isinstance(frame, Messages):
            return frame
        packet = Packet(int(frame.group_id), frame.prev_seq, frame.items, recording=self._recording)
        if len(self._packets) >= PACKETS_MAX:
            self._packets.clear()
        self._packets[text] = packet
        return packet


def shown(messages: list[Message]) -> msgspec.Raw:
    """Messages as a history shows them."""
    items = [Item(m.seq, int(m.sender_id), m.client_msg_id, digest(m.kind, m.body), m.message_id) for m in messages]
    return msgspec.Raw(msgspec.json.encode(items))


def body(due_ns: int, filler: str) -> str:
    """A message body that tells when it was due, so that any process can measure its way."""
    return f"{due_ns:019d} {filler}"


def due_of(text: str) -> int:
    """When the message was due; 0 for one that is not ours."""
    head = text[:19]
    return int(head) if head.isdigit() else 0


def send_frame(request_id: int, group: int, client_msg_id: str, text: str) -> bytes:
    """`message.send`; `text` needs no escaping."""
    return (
        f'{{"id":{request_id},"type":"message.send","group_id":"{group}","client_msg_id":"{client_msg_id}",'
        f'"kind":"text","body":"{text}"}}'
    ).encode()


PING = b'{"id":0,"type":"ping"}'
"""Id 0 is kept for it."""
