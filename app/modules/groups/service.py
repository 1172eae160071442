"""Groups from making one to disbanding it, joining and leaving. Other members: members.py; invitations: invites.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.errors import BadRequest, Conflict
from app.modules.groups import events
from app.modules.groups.access import GroupGate, check_role, no_such_group
from app.modules.groups.changes import GroupChanges
from app.modules.groups.member_repository import MemberRepository
from app.modules.groups.models import (
    FoundGroup,
    MyGroup,
    Page,
    Visibility,
    check_announcement,
    check_name,
    check_query,
    page_of,
)
from app.modules.groups.profiles import MemberProfiles
from app.modules.groups.repository import GroupRepository
from app.protocol.fields import MAX_INT64
from app.storage.postgres import Connection, Postgres

DELETED_USERS_PER_EVENT = 10_000
"""About 90 KB of ids: one publication stays below the 256 KiB of a blob."""


class IdSource(Protocol):
    """Snowflake ids."""

    def stamp(self, n: int) -> Sequence[int]:
        """`n` rising ids."""


@dataclass(frozen=True, slots=True)
class GroupBounds:
    """Settings of groups."""

    max_members: int
    max_groups_per_user: int
    page_max: int


class GroupService:
    """Every method takes the caller's id first and raises NotFound for groups they are not in."""

    def __init__(
        self,
        postgres: Postgres,
        groups: GroupRepository,
        members: MemberRepository,
        gate: GroupGate,
        changes: GroupChanges,
        profiles: MemberProfiles,
        ids: IdSource,
        bounds: GroupBounds,
    ) -> None:
        self._postgres = postgres
        self._groups = groups
        self._members = members
        self._gate = gate
        self._changes = changes
        self._profiles = profiles
        self._ids = ids
        self._bounds = bounds

    async def create(self, user_id: int, name: str, visibility: Visibility) -> MyGroup:
        """A new group, owned by the caller. Raises BadRequest, Conflict (in too many groups)."""
        name = check_name(name)
        group_id = self._ids.stamp(1)[0]
        async with self._postgres.transaction() as connection:
            await self._check_room_for(connection, user_id)
            await self._groups.insert(connection, group_id, name, visibility, user_id)
            await self._groups.audit(
                connection,
                "group_created",
                actor_id=user_id,
                group_id=group_id,
                target_id=None,
                details={"visibility": visibility},
            )
            group = await self._mine(user_id, group_id, connection)
        await self._changes.publish([events.group_joined(user_id, group)])
        return group

    async def get(self, user_id: int, group_id: int) -> MyGroup:
        """A group of the caller."""
        return await self._mine(user_id, group_id)

    async def list_mine(self, user_id: int, after_id: int, limit: int) -> Page[MyGroup]:
        """Groups of the caller with id above `after_id`, at most `limit` or a page, with unread counts."""
        limit = min(limit, self._bounds.page_max)
        return page_of(await self._groups.list_mine(user_id, after_id, limit + 1), limit, lambda group: group.id)

    async def discover(self, user_id: int, q: str, before_id: int | None, limit: int) -> Page[FoundGroup]:
        """Open groups with `q` in their name, newest first, with ids below `before_id`. Raises BadRequest."""
        q = check_query(q)
        for special in ("\\", "%", "_"):
            q = q.replace(special, "\\" + special)
        before_id = MAX_INT64 if before_id is None else before_id
        limit = min(limit, self._bounds.page_max)
        found = await self._groups.discover(user_id, f"%{q}%", before_id, limit + 1)
        return page_of(found, limit, lambda group: group.id)

    async def update(self, user_id: int, group_id: int, *, name: str | None, announcement: str | None) -> MyGroup:
        """Change name or announcement; None leaves as it is. Raises BadRequest, Forbidden (plain members)."""
        name = None if name is None else check_name(name)
        announcement = None if announcement is None else check_announcement(announcement)
        if name is None and announcement is None:
            raise BadRequest("give a name or an announcement")
        async with self._changes.change(user_id, group_id) as change:
            access = await self._gate.access_group(user_id, group_id, change.connection)
            check_role(access, "admin", "change name and announcement")
            wanted = {"name": name, "announcement": announcement}
            changed = [key for key, value in wanted.items() if value not in (None, getattr(access, key))]
            if changed:
                new_name, new_text = name or access.name, access.announcement if announcement is None else announcement
                await self._groups.update(change.connection, group_id, new_name, new_text)
                await change.record("group_updated", details={"fields": changed})
            group = await self._mine(user_id, group_id, change.connection)
            if changed:
                change.events.append(events.group_updated(group))
        return group

    async def disband(self, user_id: int, group_id: int) -> None:
        """End the group for all. Raises Forbidden (not the owner)."""
        async with self._changes.change(user_id, group_id) as change:
            access = await self._gate.access_group(user_id, group_id, change.connection)
            check_role(access, "owner", "disband the group")
            user_ids = await self._groups.disband(change.connection, group_id)
            await change.record("group_disbanded")
        for start in range(0, len(user_ids), DELETED_USERS_PER_EVENT):
            part = user_ids[start : start + DELETED_USERS_PER_EVENT]
            await self._changes.publish([events.group_deleted(part, group_id, change.version)])

    async def join(self, user_id: int, group_id: int, invite_code: str | None) -> MyGroup:
        """Become a member of an open group, or of one whose invitation the caller holds; members stay what they are.

        Raises NotFound, Forbidden (banned), Conflict (the group is full, or the caller is in too many).
        """
        profile = await self._profiles.of(user_id)
        async with self._changes.change(user_id, group_id) as change:
            connection = change.connection
            if await self._gate.is_member(user_id, group_id, connection):
                return await self._mine(user_id, group_id, connection)
            group = await self._gate.access_to_join(connection, user_id, group_id, invite_code)
            if group.member_count >= self._bounds.max_members:
                raise Conflict(f"the group is full: it has {self._bounds.max_members} members")
            await self._check_room_for(connection, user_id)
            await self._members.insert(connection, group_id, user_id, change.last_seq)
            await change.record("member_joined")
            mine = await self._mine(user_id, group_id, connection)
            change.events += [
                events.group_joined(user_id, mine),
                events.group_member(
                    group_id,
                    change.version,
                    "joined",
                    profile,
                    role=mine.role,
                    muted_until=None,
                    member_count=mine.member_count,
                ),
            ]
        return mine

    async def leave(self, user_id: int, group_id: int) -> None:
        """Stop being a member. Raises Conflict for the owner."""
        profile = await self._profiles.of(user_id)
        async with self._changes.change(user_id, group_id) as change:
            access = await self._gate.access_group(user_id, group_id, change.connection)
            if access.role == "owner":
                raise Conflict("the owner cannot leave; transfer the group to another member first, or disband it")
            await self._members.delete(change.connection, group_id, user_id)
            await change.record("member_left")
            count = await self._members.count(change.connection, group_id)
            change.events += [
                events.group_left(user_id, group_id, change.version, "left"),
                events.group_member(
                    group_id, change.version, "left", profile, role=None, muted_until=None, member_count=count
                ),
            ]

    async def _mine(self, user_id: int, group_id: int, within: "Connection | None" = None) -> MyGroup:
        found = await self._groups.list_mine(user_id, group_id - 1, 1, within)
        if not found or found[0].id != group_id:
            raise no_such_group()
        return found[0]

    async def _check_room_for(self, connection: Connection, user_id: int) -> None:
        await self._members.lock_groups_of(connection, user_id)
        if await self._members.count_groups_of(connection, user_id) >= self._bounds.max_groups_per_user:
            raise Conflict(
                f"you are in {self._bounds.max_groups_per_user} groups, the most there can be; leave one first"
            )
