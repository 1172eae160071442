"""Groups, members and what a member may see of them; names and announcements as they are stored.

The pydantic models are at once the domain's objects, the bodies of HTTP answers and the content of events, so that an event
says exactly what a fresh read would say. Times are ms since 1970.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from app.errors import BadRequest
from app.protocol.fields import AnswerModel, Id
from app.protocol.unicode import BIDI_CONTROLS, is_blank, nfc

Role = Literal["owner", "admin", "member"]
Visibility = Literal["open", "invite"]

Item = TypeVar("Item")

RANK: dict[Role, int] = {"member": 1, "admin": 2, "owner": 3}
"""Who stands above whom. Zero is left for those who are not in the group."""

NAME_MAX = 50
ANNOUNCEMENT_MAX = 1000
UNREAD_SHOWN_MAX = 99


class Profile(Protocol):
    """A user as others see them."""

    @property
    def id(self) -> int:
        """The user's id."""

    @property
    def username(self) -> str:
        """Unique."""

    @property
    def display_name(self) -> str:
        """What to show."""


class Group(AnswerModel):
    """A group as each of its members sees it."""

    id: Id
    name: str
    announcement: str
    visibility: Visibility
    owner_id: Id
    member_count: int
    created_at: int
    version: int
    """Rises with every change of the group or its members; an event with a lower one than was read is old news."""


class MyGroup(Group):
    """A group with what concerns the caller alone."""

    role: Role
    muted_until: int | None
    last_seq: int
    last_read_seq: int
    unread: int
    unread_label: str


class FoundGroup(AnswerModel):
    """What everybody may know of an open group."""

    id: Id
    name: str
    visibility: Visibility
    member_count: int
    joined: bool


class MemberProfile(AnswerModel):
    """Who a member is."""

    id: Id
    username: str
    display_name: str


class Member(AnswerModel):
    """A member of a group; `muted_until` is null for those who may post."""

    user: MemberProfile
    role: Role
    muted_until: int | None


class Invite(AnswerModel):
    """A code that lets people join until `expires_at`."""

    code: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a list; `next_id` is the id to go on from, None at the end."""

    items: list[Item]
    next_id: int | None


@dataclass(frozen=True, slots=True)
class GroupAccess:
    """Proof that a user is a member now; the only way to one leads through the `access_*` functions."""

    group_id: int
    name: str
    announcement: str
    visibility: Visibility
    role: Role
    last_seq: int


@dataclass(frozen=True, slots=True)
class MemberState:
    """A member without their names."""

    user_id: int
    role: Role
    muted_until: int | None


@dataclass(frozen=True, slots=True)
class Membership:
    """One group of a user with its state."""

    group_id: int
    last_seq: int
    access_version: int


@dataclass(frozen=True, slots=True)
class MembersNow:
    """Which of the asked users are members, and the group's state and size in the same snapshot."""

    user_ids: set[int]
    last_seq: int
    access_version: int
    size: int


def page_of(found: list[Item], limit: int, id_of: Callable[[Item], int]) -> Page[Item]:
    """A page of at most `limit`, from a list that was read one item further to see whether more follow."""
    items = found[:limit]
    return Page(items, id_of(items[-1]) if len(found) > limit else None)


def unread_of(last_seq: int, last_read_seq: int, joined_seq: int, my_last_sent_seq: int) -> int:
    """Messages after the last one that the user read, sent, or found on joining."""
    return max(0, last_seq - max(last_read_seq, joined_seq, my_last_sent_seq))


def unread_label(unread: int) -> str:
    """The number as it is shown."""
    return f"{UNREAD_SHOWN_MAX}+" if unread > UNREAD_SHOWN_MAX else str(unread)


def check_name(name: str) -> str:
    """A group's name in NFC without blanks around it. Raises BadRequest."""
    name = _normalized(name, NAME_MAX, "name").strip()
    if not 1 <= len(name) <= NAME_MAX or is_blank(name):
        raise BadRequest(f"name must be 1 to {NAME_MAX} characters, not only blanks")
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in BIDI_CONTROLS for c in name):
        raise BadRequest("name must not contain control characters")
    return name


def check_announcement(text: str) -> str:
    """An announcement in NFC; empty for none. Raises BadRequest."""
    text = _normalized(text, ANNOUNCEMENT_MAX, "announcement")
    if len(text) > ANNOUNCEMENT_MAX:
        raise BadRequest(f"announcement must be at most {ANNOUNCEMENT_MAX} characters")
    if any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in text):
        raise BadRequest("announcement must not contain control characters other than line breaks and tabs")
    return text


def check_query(q: str) -> str:
    """A part of a name to look for, in NFC. Raises BadRequest."""
    q = _normalized(q, NAME_MAX, "q").strip()
    if len(q) > NAME_MAX or any(unicodedata.category(c) == "Cc" for c in q):
        raise BadRequest(f"q must be at most {NAME_MAX} characters without control characters")
    return q


def _normalized(text: str, most: int, what: str) -> str:
    if len(text) > 4 * most:
        # NFC shortens a text to a third at most; longer ones are refused before the work of normalising.
        raise BadRequest(f"{what} must be at most {most} characters")
    if any(unicodedata.category(c) == "Cs" for c in text):
        raise BadRequest(f"{what} must be valid Unicode")
    return nfc(text)
