"""The only ways to a group: each `access_*` function proves what the caller may see, or raises as if the group did not exist."""

from collections.abc import Sequence

from app.errors import Forbidden, NotFound
from app.modules.groups.member_repository import MemberRepository
from app.modules.groups.models import RANK, Group, GroupAccess, MemberState, Role
from app.modules.groups.repository import GroupRepository
from app.storage.postgres import Connection


def no_such_group() -> NotFound:
    """The one answer to everybody who is not in a group, whether it exists or not."""
    return NotFound("no such group, or you are not in it")


def no_such_member() -> NotFound:
    """For members asking about somebody who is not one."""
    return NotFound("no such member in this group")


class GroupGate:
    """Membership decides: outsiders, former members and banned users get NotFound for everything of a group."""

    def __init__(self, groups: GroupRepository, members: MemberRepository) -> None:
        self._groups = groups
        self._members = members

    async def is_member(self, user_id: int, group_id: int, within: Connection) -> bool:
        """For joining, where being outside is no error."""
        return group_id in await self._groups.accesses(user_id, [group_id], within)

    async def access_group(self, user_id: int, group_id: int, within: "Connection | None" = None) -> GroupAccess:
        """The caller's own view of a group. Raises NotFound."""
        access = (await self._groups.accesses(user_id, [group_id], within)).get(group_id)
        if access is None:
            raise no_such_group()
        return access

    async def access_groups(self, user_id: int, group_ids: Sequence[int]) -> dict[int, GroupAccess]:
        """Those of `group_ids` the user is a member of, in one query."""
        return await self._groups.accesses(user_id, group_ids) if group_ids else {}

    async def access_member(self, connection: Connection, access: GroupAccess, user_id: int) -> MemberState:
        """Another member, as a member sees them. Raises NotFound."""
        member = await self._members.find(connection, access.group_id, user_id)
        if member is None:
            raise no_such_member()
        return member

    async def access_to_join(
        self, connection: Connection, user_id: int, group_id: int, invite_code: str | None
    ) -> Group:
        """A group that somebody outside may enter: an open one, or one whose invitation they hold.

        Raises NotFound for every other, and Forbidden for those who are banned and know of the group anyway.
        """
        group = await self._groups.find(connection, group_id)
        invited = (
            group is not None
            and group.visibility == "invite"
            and invite_code is not None
            and await self._members.is_invited(connection, group_id, invite_code)
        )
        if group is None or not (group.visibility == "open" or invited):
            raise NotFound("no such group, or it needs an invitation: ask a member for a new code")
        if await self._members.is_banned(connection, group_id, user_id):
            raise Forbidden("you are banned from this group; an admin of it can let you in again")
        return group


def check_role(access: GroupAccess, least: Role, what: str) -> None:
    """Raises Forbidden when the caller stands below `least`; `what` completes "only … may"."""
    if RANK[access.role] < RANK[least]:
        who = "the owner" if least == "owner" else "the owner and admins"
        raise Forbidden(f"only {who} may {what}")


def check_outranks(access: GroupAccess, target: MemberState, what: str) -> None:
    """The owner may act on all others, an admin on plain members, nobody on themselves or the owner. Raises Forbidden."""
    check_role(access, "admin", what)
    if RANK[access.role] <= RANK[target.role]:
        raise Forbidden(f"you may not {what}: only somebody of a higher role may do that to them")
