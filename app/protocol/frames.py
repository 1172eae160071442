"""Protocol version 1 over WebSocket: what clients may send, and what the server sends. See docs/protocol.md.

Client frames decode and validate in one pass; unknown types and fields are `BadRequest`. Server frames are built as JSON bytes
(without the WebSocket header; see wsframe.py). Ids are decimal strings in JSON and ints in Python.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from app.errors import AppError, BadRequest
from app.protocol.fields import ID_PATTERN, MAX_INT64

SUBPROTOCOL = "im.v1.json"
FEATURES = ("resume", "typing", "read")

CLOSE_DRAIN, CLOSE_SLOW, CLOSE_GOING_AWAY = 4000, 4001, 4002
CLOSE_KICKED, CLOSE_REVOKED, CLOSE_PROTOCOL = 4500, 4501, 4502

REPLACED = "replaced"
"""The reason in `kick` and of 4500 when a newer connection of the same user took over: clients say it in their own words."""

GroupId = Annotated[str, msgspec.Meta(pattern=ID_PATTERN)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT64)]
RequestId = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""JSON numbers are exact in every client only up to 2^53 - 1."""


class Frame(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, frozen=True):
    """A frame from a client."""


class Send(Frame, tag="message.send", frozen=True):
    """Send a message; `ok` comes after the commit."""

    id: RequestId
    group_id: GroupId
    client_msg_id: UUID
    kind: Literal["text"]
    body: str


class Read(Frame, tag="message.read", frozen=True):
    """Everything up to `seq` is read."""

    id: RequestId
    group_id: GroupId
    seq: Seq


class Focus(Frame, tag="group.focus", frozen=True):
    """The group on screen; None: none."""

    id: RequestId
    group_id: GroupId | None


class Typing(Frame, tag="typing", frozen=True):
    """The user is typing; has no reply."""

    group_id: GroupId


class Cursor(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a client has of a group."""

    seq: Seq
    rev: Seq | None = None


class Resume(Frame, tag="resume", frozen=True):
    """After a reconnect: what the client has, by group."""

    id: RequestId
    groups: dict[GroupId, Cursor]


class Ping(Frame, tag="ping", frozen=True):
    """Keep-alive."""

    id: RequestId


ClientFrame = Send | Read | Focus | Typing | Resume | Ping


class _Probe(msgspec.Struct):
    """Finds the id of a frame that is otherwise wrong, so that the error can be matched to it."""

    id: RequestId


_decoder: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame)
_probe = msgspec.json.Decoder(_Probe)
_encoder = msgspec.json.Encoder()


def decode(text: str) -> ClientFrame:
    """A validated client frame. Raises BadRequest."""
    try:
        frame = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise BadRequest(f"not a valid frame: {error}") from None
    group_id = getattr(frame, "group_id", None)
    if group_id is not None:
        group_id_of(group_id)
    return frame


def group_id_of(text: str) -> int:
    """A group id that has the right form as an int. Raises BadRequest beyond int64."""
    group_id = int(text)
    if group_id > MAX_INT64:
        raise BadRequest("not a valid frame: a group id is larger than an int64")
    return group_id


def request_id_of(text: str) -> int | None:
    """The id of a frame that did not decode, if it has one."""
    try:
        return _probe.decode(text).id
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None


class Message(msgspec.Struct, frozen=True):
    """A stored message as every client sees it; `ts` is milliseconds since 1970."""

    message_id: str
    group_id: str
    seq: int
    sender_id: str
    client_msg_id: str
    kind: str
    body: str
    ts: int


encode_message = _encoder.encode
"""A Message as JSON bytes: made once, then used for cache, history and every receiver."""


def event(kind: str, fields: Mapping[str, Any]) -> bytes:
    """An event: `{"type": kind, **fields}`."""
    return _encoder.encode({"type": kind, **fields})


def ok(request_id: int, fields: Mapping[str, Any] | None = None) -> bytes:
    """The answer to a request that succeeded."""
    return _encoder.encode({"id": request_id, "type": "ok", **(fields or {})})


def sent(request_id: int, message_id: int, seq: int, ts: int) -> bytes:
    """The ack of a send: the message is stored."""
    return b'{"id":%d,"type":"ok","message_id":"%d","seq":%d,"ts":%d}' % (request_id, message_id, seq, ts)


def error(request_id: int | None, failure: AppError) -> bytes:
    """The answer to a request that failed; the only place where errors become WebSocket frames."""
    fields: dict[str, Any] = {} if request_id is None else {"id": request_id}
    fields |= {"type": "error", "code": failure.code, "message": failure.message, "outcome": failure.outcome}
    if failure.retry_after_ms is not None:
        fields["retry_after_ms"] = failure.retry_after_ms
    return _encoder.encode(fields)


def messages(group_id: int, prev_seq: int, items: Iterable[bytes]) -> bytes:
    """Pushed messages, contiguous and rising; the first one follows `prev_seq`."""
    return b'{"type":"messages","group_id":"%d","prev_seq":%d,"items":[%b]}' % (group_id, prev_seq, b",".join(items))


def gap(group_id: int, from_seq: int, to_seq: int | None, pull_within_ms: int) -> bytes:
    """Messages from `from_seq` on were not pushed; pull them after a random part of `pull_within_ms`."""
    fields: dict[str, Any] = {"group_id": str(group_id), "from_seq": from_seq, "pull_within_ms": pull_within_ms}
    if to_seq is not None:
        fields["to_seq"] = to_seq
    return event("gap", fields)


def history(items: Sequence[bytes], has_more: bool) -> bytes:
    """One page of stored messages."""
    return b'{"items":[%b],"has_more":%b}' % (b",".join(items), b"true" if has_more else b"false")


def deltas(groups: Mapping[int, tuple[Sequence[bytes], int, bool]]) -> bytes:
    """The answer to sync: group → (items, last_seq, has_more)."""
    parts = (
        b'"%d":{"items":[%b],"last_seq":%d,"has_more":%b}'
        % (group, b",".join(items), last, b"true" if more else b"false")
        for group, (items, last, more) in groups.items()
    )
    return b'{"groups":{%b}}' % b",".join(parts)


def resumed(request_id: int, groups: Mapping[int, tuple[str, Sequence[bytes] | None, int]]) -> bytes:
    """The answer to resume: group → (state, items or None, last_seq)."""
    parts = (
        b'"%d":{"state":"%b",%b"last_seq":%d}'
        % (group, state.encode(), b"" if items is None else b'"items":[%b],' % b",".join(items), last)
        for group, (state, items, last) in groups.items()
    )
    return b'{"id":%d,"type":"ok","groups":{%b}}' % (request_id, b",".join(parts))
