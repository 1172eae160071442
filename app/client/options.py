"""Bounds and waits of a client, each with its reason. The defaults suit a person's client; tests shorten the waits."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Everything that is a number in the client; durations in seconds."""

    start: Literal["head", "beginning"] = "head"
    """Where a reader begins in a group it has no cursor for: only what comes now, or every message from seq 1."""

    connect_timeout_s: float = 10
    """TCP, TLS, upgrade and `hello` of one attempt."""
    first_connect_s: float = 15
    """How long opening a client keeps trying before it says that there is no server: one attempt and a retry."""
    request_timeout_s: float = 15
    """Above the server's own 10 s for a send, so that its answer, which knows more, comes first."""
    http_timeout_s: float = 15
    """The same for HTTP, where a send waits as long."""
    close_timeout_s: float = 2
    """Waiting for the server's close frame; a polite goodbye is not worth more."""
    stable_s: float = 5
    """A connection that lived this long resets the backoff; a server that accepts and drops at once does not."""

    send_give_up_s: float = 60
    """How long a send is repeated: longer than a store may be away (30 s) and the server takes to recover."""
    in_flight_per_group: int = 1
    """1 keeps a sender's messages in order even when one is refused as busy and repeated; more is faster."""
    max_sends: int = 64
    """Sends without a final answer; equals what the server allows one connection."""
    max_requests: int = 256
    """Requests of any kind waiting for their answer on one connection: the sends, and some of everything else."""

    max_events: int = 2000
    """Events the application has not read; beyond it messages are left on the server and pulled later."""
    max_aside: int = 500
    """Messages of one group kept while an earlier one is missing: the largest packet a server makes."""
    max_groups: int = 1000
    """Groups in the list: twice what a server allows a user."""
    max_frame_bytes: int = 16 * 1024 * 1024
    """500 messages of 24 KiB, the largest packet, and some room."""

    pull_page: int = 100
    """Messages per group in one pull: the server's own bound."""
    pull_groups: int = 500
    """Groups in one pull or resume: the server's own bound."""
    refresh_within_s: float = 2
    """The group list is read again after a random part of this, so that a restarted server is not asked by all at once."""

    backoff_base_ms: int = 500
    """Backoff until a `hello` says better: waits are random between 0 and `min(max, base * 2^n)`."""
    backoff_max_ms: int = 30_000
    backoff_jitter: float = 1.0
    """The random part of a wait; 1 is full jitter, 0 none."""
    busy_min_ms: int = 50
    """Shortest wait before a refused send or pull is repeated, where the server names none."""
    busy_max_ms: int = 5_000
    """Longest wait there; well under `send_give_up_s`."""
    retry_after_max_s: float = 120
    """A server that asks for a longer wait is not believed."""
