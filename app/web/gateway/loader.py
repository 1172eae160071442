"""What a new connection needs from the store: is its session still valid, and its groups. Read for many connections at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from app.delivery.interest import Hold
from app.microbatch import MicroBatcher
from app.modules.groups.models import Membership
from app.protocol.endpoint import Principal


class MembershipsSource(Protocol):
    """The groups' service, as far as connecting needs it."""

    async def memberships(self, user_ids: Sequence[int]) -> Mapping[int, Sequence[Membership]]:
        """The groups of each user with their state, in one query."""


class SessionsSource(Protocol):
    """The sessions' service, as far as connecting needs it."""

    async def valid(self, sids: Sequence[UUID]) -> set[UUID]:
        """Those that are neither revoked nor expired, not from a cache."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The store's word on a connection that is registered already."""

    valid: bool
    memberships: Sequence[Membership]


class Loader:
    """Reads after the connection was registered, so that nothing falls between the reading and the live events."""

    def __init__(
        self,
        groups: MembershipsSource,
        sessions: SessionsSource,
        hold: Hold,
        *,
        batch_max: int,
        waiting_max: int,
        linger_s: float,
    ) -> None:
        self._groups = groups
        self._sessions = sessions
        self._hold = hold
        self._batcher = MicroBatcher[Principal, Welcome](
            self._load, max_batch=batch_max, linger_s=linger_s, max_waiting=waiting_max
        )

    async def load(self, principal: Principal) -> Welcome:
        """Raises Busy when too many wait or the store is away."""
        return await self._batcher.get(principal)

    async def _load(self, principals: Sequence[Principal]) -> Mapping[Principal, Welcome]:
        valid = await self._sessions.valid([principal.sid for principal in principals])
        users = [principal.user_id for principal in principals]
        memberships = await self._groups.memberships(users)
        # Read again until all of it was read while messages of these groups come here.
        while await self._hold({each.group_id for of_user in memberships.values() for each in of_user}):
            memberships = await self._groups.memberships(users)
        return {p: Welcome(p.sid in valid, memberships.get(p.user_id, ())) for p in principals}
