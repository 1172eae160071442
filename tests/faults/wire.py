"""The frames and answers a member reads; fields that a type does not have keep their defaults."""

import msgspec

from bench.wire import Message


class Cursor(msgspec.Struct):
    """One group in the answer to `resume` or `sync`."""

    last_seq: int
    items: list[Message] = []
    state: str = ""
    has_more: bool = False


class Backoff(msgspec.Struct):
    """How to come back, as `hello` says."""

    base_ms: int
    max_ms: int


class Frame(msgspec.Struct):
    """Any frame of the server."""

    type: str
    id: int | None = None
    seq: int = 0
    message_id: str = ""
    code: str = ""
    outcome: str = ""
    message: str = ""
    group_id: int = 0
    prev_seq: int = 0
    to_seq: int | None = None
    items: list[Message] = []
    groups: dict[int, Cursor] = {}
    pull_within_ms: int = 0
    retry_after_ms: int | None = None
    epoch: str = ""
    node: str = ""
    backoff: Backoff | None = None


class Synced(msgspec.Struct):
    """The answer of `POST /sync`."""

    groups: dict[int, Cursor]


# Not strict: ids are strings in JSON.
FRAME = msgspec.json.Decoder(Frame, strict=False)
SYNCED = msgspec.json.Decoder(Synced, strict=False)
