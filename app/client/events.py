"""What an application reads from a client, and the bounded queue between the two."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Literal

from app.client.errors import ClientError
from app.client.models import Group, User
from app.protocol.frames import Message

How = Literal["push", "pull"]
State = Literal["connecting", "online", "waiting", "ended"]


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """The next message of its group; `how` it came."""

    message: Message
    how: How


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """What `user` is now (no role: not a member any more), by a `change`: joined, left, kicked, banned, muted, unmuted, role."""

    group_id: str
    user: User
    change: str
    role: str | None
    muted_until: int | None


@dataclass(frozen=True, slots=True)
class GroupUpdated:
    """Name or announcement changed."""

    group: Group


@dataclass(frozen=True, slots=True)
class GroupLeft:
    """No member any more; `reason` is left, kicked, banned, disbanded, or empty where nobody said it."""

    group_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Typing:
    """Somebody is typing."""

    group_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class ReadMarked:
    """Somebody read up to `seq`."""

    group_id: str
    user_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """Somebody of a small group came online or went. Of a user the highest `ts` counts; times are ms since 1970."""

    user_id: str
    online: bool
    last_seen: int | None
    ts: int


@dataclass(frozen=True, slots=True)
class OnlineCounted:
    """So many members of a large group are online."""

    group_id: str
    online: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The server was restored: what this group showed may not be true any more; its messages come afresh."""

    group_id: str


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The connection; `wait_s` until the next attempt where it waits."""

    state: State
    detail: str = ""
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GroupsChanged:
    """The group list was read again or changed."""


Event = (
    MessageReceived
    | MemberChanged
    | GroupUpdated
    | GroupLeft
    | Typing
    | ReadMarked
    | PresenceChanged
    | OnlineCounted
    | Forgotten
    | StateChanged
    | GroupsChanged
)
Coalesced = StateChanged | GroupsChanged
"""Only the newest of each counts, so they always fit."""


class EventQueue:
    """At most `limit` events wait; a writer that finds no room leaves messages on the server and drops everything else."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: deque[Event] = deque()
        self._latest: dict[type[Event], Coalesced] = {}
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._end: ClientError | None = None
        self._ended = False

    @property
    def room(self) -> int:
        """How many more events fit."""
        return self.limit - len(self._waiting)

    def offer(self, event: Event) -> bool:
        """Add an event. False: no room."""
        if isinstance(event, StateChanged | GroupsChanged):
            self._latest[type(event)] = event
        elif self.room <= 0:
            return False
        else:
            self._waiting.append(event)
        self._changed.set()
        return True

    def end(self, error: ClientError | None) -> None:
        """Nothing comes any more; readers get what waits, then `error` or the end."""
        self._end, self._ended = error, True
        self._changed.set()

    async def get(self) -> Event | None:
        """The next event; None at the end. Raises the error the queue ended with."""
        while not self._latest and not self._waiting:
            if self._ended:
                if self._end is not None:
                    raise self._end
                return None
            self._changed.clear()
            await self._changed.wait()
        if self._latest:
            return self._latest.pop(next(iter(self._latest)))
        event = self._waiting.popleft()
        if self.room >= self.limit // 2:
            self._drained.set()
        return event

    async def wait_for_room(self) -> None:
        """Until at least half is free."""
        while self.room < self.limit // 2:
            self._drained.clear()
            await self._drained.wait()
