"""Dead letters for people and tools. Message text is shown only when asked for."""

from datetime import UTC
from uuid import UUID

from app.consumer.dead_letter_table import DeadLetter

HEX_SHOWN = 256
"""Bytes of a broken envelope."""


def as_row(letter: DeadLetter) -> list[str]:
    """id, when, broker, partition, reason, group, sender."""
    envelope = letter.decoded
    when = letter.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    who = ["broken", ""] if envelope is None else [str(envelope.group_id), str(envelope.sender_id)]
    return [str(letter.id), when, letter.broker, str(letter.partition), letter.reason, *who]


def full(letter: DeadLetter, *, text: bool) -> list[tuple[str, object]]:
    """Everything that is known of it as (name, value)."""
    return [(name.replace("_", " "), value) for name, value in as_json(letter, text=text).items()]


def as_json(letter: DeadLetter, *, text: bool) -> dict[str, object]:
    """The same for tools; ids as strings. A broken envelope shows as its size and first bytes in hex."""
    known: dict[str, object] = {
        "id": letter.id,
        "at": letter.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "broker": letter.broker,
        "partition": letter.partition,
        "position": letter.position,
        "reason": letter.reason,
        "bytes": len(letter.envelope),
    }
    envelope = letter.decoded
    if envelope is None:
        # It may hold text all the same.
        return known | {"broken": True} | ({"hex": letter.envelope[:HEX_SHOWN].hex()} if text else {})
    client_msg_id = envelope.client_msg_id
    known |= {
        "group_id": str(envelope.group_id),
        "sender_id": str(envelope.sender_id),
        "client_msg_id": str(UUID(bytes=client_msg_id)) if len(client_msg_id) == 16 else client_msg_id.hex(),
        "kind": envelope.kind,
        "content_hash": envelope.content_hash.hex(),
        "node": envelope.origin.node_id,
        "code_points": len(envelope.body),
    }
    return known | ({"body": envelope.body} if text else {})
