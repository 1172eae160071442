"""Who is online, and since when who is not. Times are ms since 1970; what is told of people is coarse: to the minute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from app.protocol.fields import AnswerModel, Id

State = Literal["online", "offline"]

MINUTE_MS = 60_000


class MemberPresence(AnswerModel):
    """One member; `last_seen` is null for those who are online, and for those who never were."""

    user_id: Id
    state: State
    last_seen: int | None


class GroupPresence(AnswerModel):
    """A group at the moment `ts` of the server; `members` is null in groups above the size in which members see each other."""

    online: int
    ts: int
    members: list[MemberPresence] | None


@dataclass(frozen=True, slots=True)
class Change:
    """A user came online or went offline, at the moment `ts` of Redis; they were there until `seen`, or longer."""

    online: bool
    ts: int
    seen: int


class Gate(Protocol):
    """The groups' gate, as far as presence needs it."""

    async def access_group(self, user_id: int, group_id: int) -> object:
        """Raises NotFound for everybody who is not a member."""


class Members(Protocol):
    """The groups' service, as far as presence needs it."""

    async def small_groups_of(self, user_ids: Sequence[int], at_most: int) -> Mapping[int, list[int]]:
        """User → their groups of 2 to `at_most` members."""

    async def large_among(self, group_ids: Sequence[int], above: int) -> set[int]:
        """Those of the groups that have more than `above` members."""

    async def some_members(self, group_id: int, at_most: int) -> list[int]:
        """The ids of at most so many members."""


def minute_of(ms: int) -> int:
    """The minute in which a moment lies."""
    return ms - ms % MINUTE_MS
