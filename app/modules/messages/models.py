"""What travels through the message path: a draft, the send in the log, and the stored message."""

import hashlib
from dataclasses import dataclass
from uuid import UUID

from google.protobuf.message import DecodeError

from app.errors import BadRequest
from app.protocol.frames import Message, encode_message
from app.protocol.magpie_pb2 import Envelope, Origin
from app.protocol.unicode import is_blank, nfc

KIND_TEXT = "text"

Key = tuple[int, int, UUID]
"""(group_id, sender_id, client_msg_id): the idempotency key of a send."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A checked send before it enters the log."""

    group_id: int
    sender_id: int
    client_msg_id: UUID
    kind: str
    body: str
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """A send as the consumer reads it from the log. `judged`: an earlier owner of its partition decided about it."""

    key: Key
    kind: str
    body: str
    content_hash: bytes
    origin: Origin
    judged: bool = False


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A committed message; `item` is its JSON as every client sees it, `ts` is milliseconds since 1970."""

    key: Key
    seq: int
    message_id: int
    ts: int
    content_hash: bytes
    item: bytes


def check_draft(
    group_id: int, sender_id: int, client_msg_id: UUID, kind: str, body: str, max_code_points: int
) -> Draft:
    """Normalise to NFC and validate. Raises BadRequest."""
    if kind != KIND_TEXT:
        raise BadRequest(f"kind must be {KIND_TEXT!r}")
    if len(body) > 4 * max_code_points:
        # NFC shortens a text to a third at most; longer ones are refused before the work of normalising.
        raise BadRequest(f"body must be 1 to {max_code_points} characters")
    body = nfc(body)
    if not 1 <= len(body) <= max_code_points or is_blank(body):
        raise BadRequest(f"body must be 1 to {max_code_points} characters, not only blanks")
    if "\0" in body:
        raise BadRequest("body must not contain NUL")
    try:
        encoded = body.encode()
    except UnicodeEncodeError:
        raise BadRequest("body must be valid Unicode") from None
    content_hash = hashlib.sha256(kind.encode() + b"\0" + encoded).digest()
    return Draft(group_id, sender_id, client_msg_id, kind, body, content_hash)


def to_envelope(draft: Draft, origin: Origin) -> bytes:
    """The bytes that enter the log."""
    return Envelope(
        origin=origin,
        group_id=draft.group_id,
        sender_id=draft.sender_id,
        client_msg_id=draft.client_msg_id.bytes,
        kind=draft.kind,
        body=draft.body,
        content_hash=draft.content_hash,
    ).SerializeToString()


def from_envelope(value: bytes, *, judged: bool = False) -> Send:
    """A send read from the log. Raises ValueError when it is not one."""
    try:
        envelope = Envelope.FromString(value)
    except DecodeError as error:
        raise ValueError(f"not an envelope: {error}") from None
    if (
        len(envelope.client_msg_id) != 16
        or len(envelope.content_hash) != 32
        or envelope.group_id <= 0
        or envelope.sender_id <= 0
    ):
        raise ValueError("an envelope without valid ids")
    key = (envelope.group_id, envelope.sender_id, UUID(bytes=envelope.client_msg_id))
    return Send(key, envelope.kind, envelope.body, envelope.content_hash, envelope.origin, judged)


def to_stored(key: Key, seq: int, message_id: int, ts: int, kind: str, body: str, content_hash: bytes) -> StoredMessage:
    """A stored message with its JSON, encoded once."""
    group_id, sender_id, client_msg_id = key
    message = Message(str(message_id), str(group_id), seq, str(sender_id), str(client_msg_id), kind, body, ts)
    return StoredMessage(key, seq, message_id, ts, content_hash, encode_message(message))
