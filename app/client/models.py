"""Objects of the HTTP API as a client reads them: unknown fields are ignored, ids are strings, times are ms since 1970."""

import msgspec

from app.protocol.frames import Message


class User(msgspec.Struct, frozen=True):
    """Somebody's public profile."""

    id: str
    username: str
    display_name: str = ""

    @property
    def name(self) -> str:
        """What to show."""
        return self.display_name or self.username


class Endpoint(msgspec.Struct, frozen=True):
    """Where to open the WebSocket."""

    url: str
    node: str = ""


class Login(msgspec.Struct, frozen=True):
    """The answer to register and login."""

    user: User
    token: str
    expires_at: int
    gateway: Endpoint


class Ticket(msgspec.Struct, frozen=True):
    """A single-use credential for the WebSocket's URL."""

    ticket: str
    expires_at: int


class Group(msgspec.Struct, frozen=True):
    """A group; the fields about the caller are set where the answer is for the caller alone."""

    id: str
    name: str
    visibility: str = "open"
    announcement: str = ""
    owner_id: str = ""
    member_count: int = 0
    version: int = 0
    """Rises with every change of the group or its members; an event with a lower one is old news."""
    role: str | None = None
    muted_until: int | None = None
    last_seq: int | None = None
    last_read_seq: int | None = None
    unread: int | None = None
    joined: bool | None = None
    """In the answer to discover: whether the caller is a member."""


class Groups(msgspec.Struct, frozen=True):
    """One page of groups; `next` is the cursor of the next page."""

    items: list[Group]
    next: str | None = None


class Member(msgspec.Struct, frozen=True):
    """A member of a group."""

    user: User
    role: str
    muted_until: int | None = None


class Members(msgspec.Struct, frozen=True):
    """One page of members."""

    items: list[Member]
    next: str | None = None


class MemberPresence(msgspec.Struct, frozen=True):
    """Whether a member is online, and since when not; ms since 1970."""

    user_id: str
    state: str
    last_seen: int | None = None


class Presence(msgspec.Struct, frozen=True):
    """Who of a group is online at `ts`; in large groups only how many."""

    online: int
    ts: int
    members: list[MemberPresence] | None = None


class Invite(msgspec.Struct, frozen=True):
    """A code that lets people join."""

    code: str
    expires_at: int


class History(msgspec.Struct, frozen=True):
    """One page of messages, rising seq; `has_more` in the direction asked for."""

    items: list[Message]
    has_more: bool


class Delta(msgspec.Struct, frozen=True):
    """What one group has after a cursor."""

    items: list[Message]
    last_seq: int
    has_more: bool


class Deltas(msgspec.Struct, frozen=True):
    """The answer to sync; groups the caller is not in are absent."""

    groups: dict[str, Delta]
