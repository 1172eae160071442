"""The lines of a history file: one JSON object each, told apart by `e`.

Times are CLOCK_MONOTONIC in nanoseconds, so that processes of one machine can be compared. A `conn` is one socket; a `client` is
whoever keeps a cursor and lives through reconnects; one member may have several clients.
"""

import hashlib
import unicodedata
from typing import Literal, NamedTuple

import msgspec

Via = Literal["push", "pull"]


class Item(NamedTuple):
    """A message as it was shown. `message_id` is empty where it was not recorded."""

    seq: int
    sender: int
    client_msg_id: str
    digest: str
    message_id: str = ""


class Record(msgspec.Struct, tag_field="e", tag=str.lower, forbid_unknown_fields=True, gc=False):
    """Something that happened at `t`."""

    t: int


class Invoke(Record):
    """An attempt to send is about to be written; `op` is unique within the file."""

    op: int
    group: int
    sender: int
    client_msg_id: str
    digest: str
    conn: str
    client: str = ""
    """Whose cursor the ack moves; empty for a sender that keeps none."""
    attempt: int = 1


class Ok(Record):
    """The attempt was acked."""

    op: int
    seq: int
    message_id: str = ""


class Fail(Record):
    """The attempt was answered with outcome `none`: it will never appear."""

    op: int
    code: str = ""


class Info(Record):
    """The outcome is unknown: an error with that outcome, or no answer. An attempt without any answer counts the same."""

    op: int
    code: str = ""


class Online(Record):
    """The client is connected and responsible for these groups: group → the seq it has already, or null: as before."""

    client: str
    groups: dict[int, int | None]


class Offline(Record):
    """The client is away from these groups (null: from all): disconnected, or no longer a member."""

    client: str
    groups: list[int] | None = None


class Seen(Record):
    """Messages of one frame or one answer reached the client, in this order. `items` is a JSON array of `Item`."""

    client: str
    conn: str
    group: int
    via: Via
    items: msgspec.Raw


class Final(Record):
    """A member read the whole history of a group between `began` and `t`, when everything had come to rest."""

    member: int
    group: int
    began: int
    items: msgspec.Raw


Line = Invoke | Ok | Fail | Info | Online | Offline | Seen | Final


def digest(kind: str, body: str) -> str:
    """What a message says, in 16 hex digits; the server stores bodies in NFC."""
    text = f"{kind}\0{unicodedata.normalize('NFC', body)}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
