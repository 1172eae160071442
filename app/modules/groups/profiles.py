"""Names of members, which the accounts know."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from app.modules.groups.models import Member, MemberProfile, MemberState, Profile


class ProfileSource(Protocol):
    """The accounts' service, as far as groups need it."""

    async def profiles(self, user_ids: Sequence[int]) -> Mapping[int, Profile]:
        """Those of `user_ids` that exist."""


class MemberProfiles:
    """Asked before a transaction, never inside one: a held connection must not wait for another."""

    def __init__(self, accounts: ProfileSource) -> None:
        self._accounts = accounts

    async def find(self, user_id: int) -> MemberProfile | None:
        """One user; None when there is no such user."""
        profile = (await self._accounts.profiles([user_id])).get(user_id)
        return None if profile is None else _shown(profile)

    async def of(self, user_id: int) -> MemberProfile:
        """A user who exists, because they are logged in or a member."""
        return await self.find(user_id) or _nameless(user_id)

    async def with_names(self, members: Sequence[MemberState]) -> list[Member]:
        """Members with their names, in one call."""
        found = await self._accounts.profiles([member.user_id for member in members])
        return [
            Member(
                user=_shown(found[member.user_id]) if member.user_id in found else _nameless(member.user_id),
                role=member.role,
                muted_until=member.muted_until,
            )
            for member in members
        ]


def _shown(profile: Profile) -> MemberProfile:
    return MemberProfile(id=profile.id, username=profile.username, display_name=profile.display_name)


def _nameless(user_id: int) -> MemberProfile:
    # A list with one nameless member is better than no list.
    return MemberProfile(id=user_id, username="", display_name="")
