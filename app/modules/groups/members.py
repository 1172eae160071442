"""What is done to other members: roles, mutes, kicks, bans, and handing the group over."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import BadRequest, Conflict, Forbidden, NotFound
from app.modules.groups import events
from app.modules.groups.access import GroupGate, check_outranks, check_role
from app.modules.groups.changes import GroupChange, GroupChanges
from app.modules.groups.events import MemberChange, Reason
from app.modules.groups.member_repository import MemberRepository
from app.modules.groups.models import Member, MemberProfile, MemberState, MyGroup, Page, Role, page_of
from app.modules.groups.profiles import MemberProfiles
from app.modules.groups.repository import GroupRepository


@dataclass(frozen=True, slots=True)
class MemberPatch:
    """What to change of a member; None leaves a role as it is, `mute` says whether `muted_until` is meant."""

    role: Role | None = None
    mute: bool = False
    muted_until: int | None = None


class MemberService:
    """Every method takes the caller's id first. Raises NotFound to outsiders, Forbidden where the caller's role is too low."""

    def __init__(
        self,
        groups: GroupRepository,
        members: MemberRepository,
        gate: GroupGate,
        changes: GroupChanges,
        profiles: MemberProfiles,
        page_max: int,
    ) -> None:
        self._groups = groups
        self._members = members
        self._gate = gate
        self._changes = changes
        self._profiles = profiles
        self._page_max = page_max

    async def list_members(self, user_id: int, group_id: int, after_id: int, limit: int) -> Page[Member]:
        """Members with user id above `after_id`, rising, at most `limit` or a page."""
        await self._gate.access_group(user_id, group_id)
        limit = min(limit, self._page_max)
        found = await self._members.list_members(group_id, after_id, limit + 1)
        return page_of(await self._profiles.with_names(found), limit, lambda member: member.user.id)

    async def update(self, user_id: int, group_id: int, target_id: int, patch: MemberPatch) -> Member:
        """Change role (owner only) or mute. Raises BadRequest for a mute that is over already."""
        if patch.role is None and not patch.mute:
            raise BadRequest("give a role or muted_until")
        if patch.muted_until is not None and patch.muted_until <= time.time() * 1000:
            raise BadRequest("muted_until must lie in the future, in ms since 1970; null ends a mute")
        profile = await self._profiles.of(target_id)
        async with self._changes.change(user_id, group_id) as change:
            access = await self._gate.access_group(user_id, group_id, change.connection)
            target = await self._gate.access_member(change.connection, access, target_id)
            if patch.role is not None:
                check_role(access, "owner", "change roles")
            check_outranks(access, target, "change role or mute of this member")
            done = await self._apply(change, target, patch)
            member = await self._gate.access_member(change.connection, access, target_id)
            if done:
                await self._announce(change, done, profile, member)
        return Member(user=profile, role=member.role, muted_until=member.muted_until)

    async def _apply(self, change: GroupChange, target: MemberState, patch: MemberPatch) -> list[MemberChange]:
        done: list[MemberChange] = []
        user_id = target.user_id
        if patch.role is not None and patch.role != target.role:
            await self._members.set_role(change.connection, change.group_id, user_id, patch.role)
            if patch.role == "member":
                await self._members.delete_invites_of(change.connection, change.group_id, user_id)
            await change.record("role_changed", user_id, {"role": patch.role})
            done.append("role")
        if patch.mute and patch.muted_until != target.muted_until:
            await self._members.set_muted_until(change.connection, change.group_id, user_id, patch.muted_until)
            if patch.muted_until is None:
                await change.record("member_unmuted", user_id)
            else:
                await change.record("member_muted", user_id, {"muted_until": patch.muted_until})
            done.append("unmuted" if patch.muted_until is None else "muted")
        return done

    async def transfer(self, user_id: int, group_id: int, target_id: int) -> MyGroup:
        """Make another member the owner; the caller becomes an admin. Raises Conflict for the caller themselves."""
        profiles = [await self._profiles.of(user_id), await self._profiles.of(target_id)]
        async with self._changes.change(user_id, group_id) as change:
            access = await self._gate.access_group(user_id, group_id, change.connection)
            check_role(access, "owner", "hand the group over")
            if target_id == user_id:
                raise Conflict("you own this group already")
            await self._gate.access_member(change.connection, access, target_id)
            # In this order: a group has never two owners.
            await self._members.set_role(change.connection, group_id, user_id, "admin")
            await self._members.set_role(change.connection, group_id, target_id, "owner")
            await change.record("ownership_transferred", target_id)
            mine = (await self._groups.list_mine(user_id, group_id - 1, 1, change.connection))[0]
            change.events.append(events.group_updated(mine))
            for profile in profiles:
                member = await self._gate.access_member(change.connection, access, profile.id)
                await self._announce(change, ["role"], profile, member)
        return mine

    async def kick(self, user_id: int, group_id: int, target_id: int) -> None:
        """Remove a member, who may join again."""
        profile = await self._profiles.of(target_id)
        async with self._changes.change(user_id, group_id) as change:
            access = await self._gate.access_group(user_id, group_id, change.connection)
            target = await self._gate.access_member(change.connection, access, target_id)
            check_outranks(access, target, "remove this member")
            await change.record("member_kicked", target_id)
            await self._remove(change, profile, "kicked")

    async def ban(self, user_id: int, group_id: int, target_id: int) -> None:
        """Remove a user, member or not, and keep them out. Raises NotFound for users that do not exist."""
        profile = await self._profiles.find(target_id)
        async with self._changes.change(user_id, group_id) as change:
            access = await self._gate.access_group(user_id, group_id, change.connection)
            check_role(access, "admin", "ban")
            if target_id == user_id:
                raise Forbidden("you may not ban yourself")
            if profile is None:
                raise NotFound("no such user")
            target = await self._members.find(change.connection, group_id, target_id)
            if target is not None:
                check_outranks(access, target, "ban this member")
            new = await self._members.insert_ban(change.connection, group_id, target_id, user_id)
            if target is not None:
                await change.record("member_banned", target_id)
                await self._remove(change, profile, "banned")
            elif new:
                await change.note("user_banned", target_id)

    async def unban(self, user_id: int, group_id: int, target_id: int) -> None:
        """Let a user join again; nothing happens for one who is not banned."""
        async with self._changes.change(user_id, group_id) as change:
            access = await self._gate.access_group(user_id, group_id, change.connection)
            check_role(access, "admin", "lift bans")
            if await self._members.delete_ban(change.connection, group_id, target_id):
                await change.note("user_unbanned", target_id)

    async def _remove(self, change: GroupChange, profile: MemberProfile, reason: Reason) -> None:
        await self._members.delete(change.connection, change.group_id, profile.id)
        count = await self._members.count(change.connection, change.group_id)
        change.events += [
            events.group_left(profile.id, change.group_id, change.version, reason),
            events.group_member(
                change.group_id, change.version, reason, profile, role=None, muted_until=None, member_count=count
            ),
        ]

    async def _announce(
        self, change: GroupChange, done: Sequence[MemberChange], profile: MemberProfile, member: MemberState
    ) -> None:
        count = await self._members.count(change.connection, change.group_id)
        change.events += [
            events.group_member(
                change.group_id,
                change.version,
                what,
                profile,
                role=member.role,
                muted_until=member.muted_until,
                member_count=count,
            )
            for what in done
        ]
