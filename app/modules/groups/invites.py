"""Invitations: codes that open a group to whoever holds them, until they expire or their maker leaves."""

import secrets
from datetime import timedelta

from app.modules.groups.access import GroupGate, check_role
from app.modules.groups.changes import GroupChanges
from app.modules.groups.member_repository import MemberRepository
from app.modules.groups.models import Invite

CODE_BYTES = 12
"""96 random bits, 16 characters: cannot be guessed."""


class InviteService:
    """Who may let people in: the owner and admins; in an open group, where nobody needs a code, every member may share one."""

    def __init__(self, members: MemberRepository, gate: GroupGate, changes: GroupChanges, *, ttl_s: int) -> None:
        self._members = members
        self._gate = gate
        self._changes = changes
        self._ttl = timedelta(seconds=ttl_s)

    async def invite(self, user_id: int, group_id: int) -> Invite:
        """A code of the caller; the same again while it has half of its time left. Raises NotFound, Forbidden.

        So a member never has more than two codes that work.
        """
        async with self._changes.change(user_id, group_id) as change:
            access = await self._gate.access_group(user_id, group_id, change.connection)
            if access.visibility != "open":
                check_role(access, "admin", "invite to this group")
            await self._members.delete_expired_invites(change.connection, group_id)
            known = await self._members.find_invite_of(change.connection, group_id, user_id, self._ttl / 2)
            if known is not None:
                return known
            code = secrets.token_urlsafe(CODE_BYTES)
            await change.note("invite_created")
            return await self._members.insert_invite(change.connection, code, group_id, user_id, self._ttl)
