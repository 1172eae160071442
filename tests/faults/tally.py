"""What all members of a load count together."""

import asyncio
import ssl
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from bench.history import Recorder

HANDSHAKES_AT_ONCE = 500
"""Of all members together. One takes 4 ms of this process, and those under way go on in turn: of thousands none ends before the
last one, and what comes to members who are there already waits for as long."""


@dataclass(slots=True)
class Tally:
    """Counts, and what must not happen though it is no matter of the history."""

    acked: int = 0
    resent: int = 0
    skipped: int = 0
    """Messages that nobody tried to send: too many of that member waited already."""
    connects: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    """Handshakes that were not let in, and had to come again: status of HTTP → count."""
    gaps: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """code/outcome → count."""
    broken: list[str] = field(default_factory=list)
    """Refused tokens, lost memberships, another epoch, answers with holes."""


@dataclass(frozen=True, slots=True)
class Place:
    """What the members of one load share."""

    url: str
    http: aiohttp.ClientSession
    """For requests: few connections, used again and again."""
    trust: ssl.SSLContext | None
    """For WebSockets over TLS."""
    recorder: Recorder
    tally: Tally
    handshakes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(HANDSHAKES_AT_ONCE))
