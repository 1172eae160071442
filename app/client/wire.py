"""Frames from the server, read leniently: unknown types and unknown fields are ignored, as the protocol asks of clients."""

from typing import Any, Literal, TypeVar

import msgspec

from app.client.models import Group, User
from app.errors import ERROR_TYPES, AppError, Internal
from app.protocol.frames import Message

Answer = TypeVar("Answer")


class Backoff(msgspec.Struct, frozen=True):
    """How to wait before connecting again."""

    base_ms: int
    max_ms: int
    jitter: float


class Hello(msgspec.Struct, frozen=True):
    """The first frame. `epoch` changes after a restore: cursors are forgotten then."""

    session: str
    user_id: str
    node: str
    server_time: int
    heartbeat_s: float
    backoff: Backoff
    epoch: str | int
    limits: dict[str, Any] = {}
    features: list[str] = []


class Packet(msgspec.Struct, frozen=True):
    """Pushed messages, contiguous; the first one follows `prev_seq`."""

    group_id: str
    prev_seq: int
    items: list[Message]


class Gap(msgspec.Struct, frozen=True):
    """Messages that were not pushed (`gap`), or a group to be read again (`resync`)."""

    group_id: str
    from_seq: int
    pull_within_ms: int = 0
    to_seq: int | None = None


class GroupJoined(msgspec.Struct, frozen=True):
    """The user is a member now."""

    group: Group


class GroupUpdated(msgspec.Struct, frozen=True):
    """Name, announcement or other properties changed."""

    group: Group


class GroupLeft(msgspec.Struct, frozen=True):
    """The user is no member any more; `reason` is left, kicked or banned."""

    group_id: str
    reason: str = ""
    version: int = 0


class GroupDeleted(msgspec.Struct, frozen=True):
    """The group was disbanded."""

    group_id: str
    version: int = 0


class MemberChanged(msgspec.Struct, frozen=True):
    """What `user` is now (no role: not a member any more), and by which `change`."""

    group_id: str
    user: User
    change: str
    role: str | None = None
    muted_until: int | None = None
    member_count: int = 0
    version: int = 0


class TypingNow(msgspec.Struct, frozen=True):
    """Somebody is typing."""

    group_id: str
    user_id: str


class ReadMark(msgspec.Struct, frozen=True):
    """Somebody read up to `seq`."""

    group_id: str
    user_id: str
    seq: int


class PresenceNow(msgspec.Struct, frozen=True):
    """Somebody of a small group came online or went. The highest `ts` (ms since 1970) of a user counts."""

    user_id: str
    state: Literal["online", "offline"]
    ts: int
    last_seen: int | None = None


class OnlineNow(msgspec.Struct, frozen=True):
    """How many members of a large group are online."""

    group_id: str
    online: int


class Kick(msgspec.Struct, frozen=True):
    """The server is about to end the session."""

    reason: str = ""


class Drain(msgspec.Struct, frozen=True):
    """The server is about to close; come back after a random part of this time."""

    retry_after_ms: int = 0


GroupEvent = GroupJoined | GroupUpdated | GroupLeft | GroupDeleted | MemberChanged
ServerEvent = Hello | Packet | Gap | TypingNow | ReadMark | PresenceNow | OnlineNow | Kick | Drain | GroupEvent


class Resumed(msgspec.Struct, frozen=True):
    """One group in the answer to `resume`."""

    state: Literal["current", "delta", "behind", "reset"]
    last_seq: int
    items: list[Message] | None = None


class ResumeAnswer(msgspec.Struct, frozen=True):
    """The answer to `resume`."""

    groups: dict[str, Resumed]


class Sent(msgspec.Struct, frozen=True):
    """A stored message of ours; `ts` is milliseconds since 1970."""

    message_id: str
    seq: int
    ts: int


class _Head(msgspec.Struct, frozen=True):
    type: str
    id: int | None = None


class _Failure(msgspec.Struct, frozen=True):
    code: str
    message: str
    outcome: Literal["none", "unknown"] = "unknown"
    retry_after_ms: int | None = None


_head = msgspec.json.Decoder(_Head)
_sent = msgspec.json.Decoder(Sent)
_resume_answer = msgspec.json.Decoder(ResumeAnswer)
_failure = msgspec.json.Decoder(_Failure)
_events: dict[str, msgspec.json.Decoder[ServerEvent]] = {
    "hello": msgspec.json.Decoder(Hello),
    "messages": msgspec.json.Decoder(Packet),
    "gap": msgspec.json.Decoder(Gap),
    "resync": msgspec.json.Decoder(Gap),
    "group.joined": msgspec.json.Decoder(GroupJoined),
    "group.updated": msgspec.json.Decoder(GroupUpdated),
    "group.left": msgspec.json.Decoder(GroupLeft),
    "group.deleted": msgspec.json.Decoder(GroupDeleted),
    "group.member": msgspec.json.Decoder(MemberChanged),
    "typing": msgspec.json.Decoder(TypingNow),
    "read": msgspec.json.Decoder(ReadMark),
    "presence": msgspec.json.Decoder(PresenceNow),
    "presence.count": msgspec.json.Decoder(OnlineNow),
    "kick": msgspec.json.Decoder(Kick),
    "drain": msgspec.json.Decoder(Drain),
}


class Reply(msgspec.Struct, frozen=True):
    """An answer to one of our requests: the frame's bytes, or the error it carries."""

    id: int | None
    result: str | AppError


def decode(text: str) -> ServerEvent | Reply | None:
    """One frame; None for a type this client does not know. Raises msgspec.DecodeError for what is no frame at all."""
    head = _head.decode(text)
    if head.type == "ok":
        return Reply(head.id, text)
    if head.type == "error":
        return Reply(head.id, to_error(_failure.decode(text)))
    decoder = _events.get(head.type)
    return None if decoder is None else decoder.decode(text)


def resume_answer(text: str) -> dict[str, Resumed]:
    """The groups in an `ok` to `resume`. Raises Internal for anything else."""
    return _read(_resume_answer, text).groups


def sent(text: str) -> Sent:
    """The ack in an `ok` to `message.send`. Raises Internal for anything else."""
    return _read(_sent, text)


def _read(decoder: msgspec.json.Decoder[Answer], text: str) -> Answer:
    try:
        return decoder.decode(text)
    except msgspec.DecodeError as error:
        raise Internal(f"the server's answer cannot be read: {error}") from None


def to_error(failure: _Failure) -> AppError:
    """The same error that the server raised; codes of later protocol versions become Internal."""
    kind = ERROR_TYPES.get(failure.code, Internal)
    return kind(failure.message, retry_after_ms=failure.retry_after_ms, outcome=failure.outcome)
