"""SQL of members, bans and invitations: one statement per method. Methods that take a connection run inside the caller's transaction."""

from datetime import timedelta

from app.modules.groups.models import Invite, MemberState, Role
from app.modules.groups.repository import mute_of, to_ms
from app.storage.postgres import Connection, Postgres


class MemberRepository:
    """Who is in a group, who must stay out, and who is asked in."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def list_members(self, group_id: int, after_id: int, limit: int) -> list[MemberState]:
        """Members with user id above `after_id`, rising."""
        rows = await self._postgres.fetch(
            """SELECT user_id, role, muted_until, statement_timestamp() AS now FROM group_members
               WHERE group_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3""",
            group_id,
            after_id,
            limit,
        )
        return [MemberState(row["user_id"], row["role"], mute_of(row["muted_until"], row["now"])) for row in rows]

    async def find(self, connection: Connection, group_id: int, user_id: int) -> MemberState | None:
        """One member."""
        row = await connection.fetchrow(
            """SELECT role, muted_until, statement_timestamp() AS now FROM group_members
               WHERE group_id = $1 AND user_id = $2""",
            group_id,
            user_id,
        )
        return None if row is None else MemberState(user_id, row["role"], mute_of(row["muted_until"], row["now"]))

    async def count(self, connection: Connection, group_id: int) -> int:
        """Members of a group."""
        members: int = await connection.fetchval("SELECT count(*) FROM group_members WHERE group_id = $1", group_id)
        return members

    async def lock_groups_of(self, connection: Connection, user_id: int) -> None:
        """Until the end of the transaction nobody else changes how many groups this user is in.

        Taken after the group's own lock, everywhere, so that no two transactions wait for each other.
        """
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('groups of ' || $1::bigint, 0))", user_id
        )

    async def count_groups_of(self, connection: Connection, user_id: int) -> int:
        """Groups a user is in."""
        groups: int = await connection.fetchval("SELECT count(*) FROM group_members WHERE user_id = $1", user_id)
        return groups

    async def insert(self, connection: Connection, group_id: int, user_id: int, last_seq: int) -> None:
        """A new member; whatever an earlier membership knew is gone."""
        await connection.execute(
            """INSERT INTO group_members (group_id, user_id, role, joined_seq, last_read_seq)
               VALUES ($1, $2, 'member', $3, $3)""",
            group_id,
            user_id,
            last_seq,
        )

    async def delete(self, connection: Connection, group_id: int, user_id: int) -> None:
        """No member any more; the invitations they made go with them."""
        await connection.execute(
            """WITH invites AS (DELETE FROM group_invites WHERE group_id = $1 AND created_by = $2)
               DELETE FROM group_members WHERE group_id = $1 AND user_id = $2""",
            group_id,
            user_id,
        )

    async def set_role(self, connection: Connection, group_id: int, user_id: int, role: Role) -> None:
        """Another role; an owner is never muted."""
        await connection.execute(
            """UPDATE group_members SET role = $3, muted_until = CASE WHEN $3 = 'owner' THEN NULL ELSE muted_until END
               WHERE group_id = $1 AND user_id = $2""",
            group_id,
            user_id,
            role,
        )

    async def set_muted_until(
        self, connection: Connection, group_id: int, user_id: int, muted_until: int | None
    ) -> None:
        """Mute until a moment in ms since 1970; None ends a mute."""
        await connection.execute(
            """UPDATE group_members SET muted_until = timestamptz 'epoch' + $3::bigint * interval '1 millisecond'
               WHERE group_id = $1 AND user_id = $2""",
            group_id,
            user_id,
            muted_until,
        )

    async def is_banned(self, connection: Connection, group_id: int, user_id: int) -> bool:
        """Whether the user must stay out."""
        banned: bool = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM group_bans WHERE group_id = $1 AND user_id = $2)", group_id, user_id
        )
        return banned

    async def insert_ban(self, connection: Connection, group_id: int, user_id: int, banned_by: int) -> bool:
        """Keep a user out. False: they were banned already."""
        done = await connection.execute(
            "INSERT INTO group_bans (group_id, user_id, banned_by) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            group_id,
            user_id,
            banned_by,
        )
        return done == "INSERT 0 1"

    async def delete_ban(self, connection: Connection, group_id: int, user_id: int) -> bool:
        """Let a user in again. False: they were not banned."""
        done = await connection.execute(
            "DELETE FROM group_bans WHERE group_id = $1 AND user_id = $2", group_id, user_id
        )
        return done == "DELETE 1"

    async def delete_expired_invites(self, connection: Connection, group_id: int) -> None:
        """Forget codes that do not work any more."""
        await connection.execute("DELETE FROM group_invites WHERE group_id = $1 AND expires_at <= now()", group_id)

    async def delete_invites_of(self, connection: Connection, group_id: int, user_id: int) -> None:
        """Codes of somebody who may not invite any more."""
        await connection.execute("DELETE FROM group_invites WHERE group_id = $1 AND created_by = $2", group_id, user_id)

    async def find_invite_of(
        self, connection: Connection, group_id: int, user_id: int, valid_for: timedelta
    ) -> Invite | None:
        """The newest code of this user that works for at least `valid_for`."""
        row = await connection.fetchrow(
            """SELECT code, expires_at FROM group_invites
               WHERE group_id = $1 AND created_by = $2 AND expires_at >= now() + $3::interval
               ORDER BY expires_at DESC LIMIT 1""",
            group_id,
            user_id,
            valid_for,
        )
        return None if row is None else Invite(code=row["code"], expires_at=to_ms(row["expires_at"]))

    async def insert_invite(
        self, connection: Connection, code: str, group_id: int, user_id: int, valid_for: timedelta
    ) -> Invite:
        """A new code."""
        expires_at = await connection.fetchval(
            """INSERT INTO group_invites (code, group_id, created_by, expires_at)
               VALUES ($1, $2, $3, now() + $4::interval) RETURNING expires_at""",
            code,
            group_id,
            user_id,
            valid_for,
        )
        return Invite(code=code, expires_at=to_ms(expires_at))

    async def is_invited(self, connection: Connection, group_id: int, code: str) -> bool:
        """Whether the code opens this group now."""
        invited: bool = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM group_invites WHERE code = $2 AND group_id = $1 AND expires_at > now())",
            group_id,
            code,
        )
        return invited
