"""What the consumer asks inside its transaction, and what gateways ask about the groups of their connections. Everything in bulk."""

from collections.abc import Iterable, Mapping, Sequence

from app.errors import AppError, Forbidden
from app.modules.groups.access import no_such_group
from app.modules.groups.models import Membership, MembersNow
from app.modules.groups.state_repository import StateRepository
from app.storage.postgres import Connection

GROUPS_PER_READ = 50
"""Even if all of them were as large as groups may be, an answer stays at a few MB."""


class GroupStates:
    """The narrow rows, memberships and the right to post."""

    def __init__(self, repository: StateRepository) -> None:
        self._repository = repository

    async def lock_seqs(self, connection: Connection, group_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Group → (last_seq, access_version), locked in rising id until the end of the transaction; unknown groups are absent."""
        return await self._repository.lock_seqs(connection, group_ids)

    async def move_seqs(self, connection: Connection, last_seqs: Mapping[int, int]) -> None:
        """Set the heads of groups that this transaction has locked."""
        await self._repository.move_seqs(connection, last_seqs)

    async def check_senders(
        self, connection: Connection, pairs: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], AppError | None]:
        """(group_id, user_id) → None when the user may post now.

        Else NotFound (outsider, former member, disbanded or unknown group) or Forbidden (muted).
        """
        members = await self._repository.senders(connection, pairs)
        return {pair: _muted(members[pair]) if pair in members else no_such_group() for pair in pairs}

    async def memberships(self, user_ids: Sequence[int]) -> dict[int, list[Membership]]:
        """The groups of each of these users with their state, in one query."""
        return await self._repository.memberships(user_ids)

    async def group_ids_of(self, user_ids: Sequence[int]) -> set[int]:
        """Every group one of these users is a member of."""
        return await self._repository.group_ids_of(user_ids)

    async def members_among(self, group_ids: Sequence[int], user_ids: Iterable[int]) -> dict[int, MembersNow]:
        """For each group that exists: which of these users are members now, and its state and size in the same snapshot."""
        # The members come here to be compared, instead of 10,000 local users going to PostgreSQL for each group that changed.
        asked = set(user_ids)
        found = {}
        for start in range(0, len(group_ids), GROUPS_PER_READ):
            rows = await self._repository.members(group_ids[start : start + GROUPS_PER_READ])
            for group_id, last_seq, access_version, members in rows:
                found[group_id] = MembersNow(asked.intersection(members), last_seq, access_version, len(members))
        return found

    async def small_groups_of(self, user_ids: Sequence[int], at_most: int) -> dict[int, list[int]]:
        """User → their groups of 2 to `at_most` members."""
        found: dict[int, list[int]] = {}
        for user_id, group_id in await self._repository.small_groups_of(user_ids, at_most):
            found.setdefault(user_id, []).append(group_id)
        return found

    async def large_among(self, group_ids: Sequence[int], above: int) -> set[int]:
        """Those of the groups that have more than `above` members."""
        return await self._repository.large_among(group_ids, above)

    async def some_members(self, group_id: int, at_most: int) -> list[int]:
        """The ids of at most so many members."""
        return await self._repository.some_members(group_id, at_most)


def _muted(muted_until: int | None) -> AppError | None:
    if muted_until is None:
        return None
    return Forbidden("you are muted in this group for now")
