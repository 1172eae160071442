"""SQL of groups as people see them: one statement per method. Methods that take a connection run inside the caller's transaction."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from app.modules.groups.models import (
    FoundGroup,
    Group,
    GroupAccess,
    MyGroup,
    Visibility,
    unread_label,
    unread_of,
)
from app.storage.postgres import Connection, Postgres

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970, exactly."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def mute_of(moment: datetime | None, now: datetime) -> int | None:
    """A mute as it is shown: one that is over is none."""
    return to_ms(moment) if moment is not None and moment > now else None


class GroupRepository:
    """Groups, their audit log, and lists of them."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def insert(
        self, connection: Connection, group_id: int, name: str, visibility: Visibility, owner_id: int
    ) -> None:
        """A new group with its owner as the only member."""
        await connection.execute(
            """WITH new_group AS (INSERT INTO groups (group_id, name, visibility) VALUES ($1, $2, $3)),
                    new_seq AS (INSERT INTO group_seq (group_id) VALUES ($1))
               INSERT INTO group_members (group_id, user_id, role, joined_seq) VALUES ($1, $4, 'owner', 0)""",
            group_id,
            name,
            visibility,
            owner_id,
        )

    async def find(self, connection: Connection, group_id: int) -> Group | None:
        """A group that is not disbanded, whoever asks."""
        row = await connection.fetchrow(
            """SELECT g.group_id, g.name, g.announcement, g.visibility, g.created_at, s.access_version,
                      (SELECT user_id FROM group_members WHERE group_id = g.group_id AND role = 'owner') AS owner_id,
                      (SELECT count(*) FROM group_members WHERE group_id = g.group_id) AS member_count
               FROM groups AS g JOIN group_seq AS s USING (group_id)
               WHERE g.group_id = $1 AND g.disbanded_at IS NULL""",
            group_id,
        )
        if row is None:
            return None
        return Group(
            id=row["group_id"],
            name=row["name"],
            announcement=row["announcement"],
            visibility=row["visibility"],
            owner_id=row["owner_id"],
            member_count=row["member_count"],
            created_at=to_ms(row["created_at"]),
            version=row["access_version"],
        )

    async def list_mine(
        self, user_id: int, after_id: int, limit: int, within: "Connection | None" = None
    ) -> list[MyGroup]:
        """Groups of a user with id above `after_id`, rising, with unread counts: everything in one query.

        The newest own message is one index look-up for each group; this is the only place outside the messages' own repository that reads
        their table.
        """
        rows = await (within or self._postgres).fetch(
            """SELECT g.group_id, g.name, g.announcement, g.visibility, g.created_at, s.access_version, s.last_seq,
                      m.role, m.muted_until, m.joined_seq, m.last_read_seq, statement_timestamp() AS now,
                      (SELECT user_id FROM group_members WHERE group_id = g.group_id AND role = 'owner') AS owner_id,
                      (SELECT count(*) FROM group_members WHERE group_id = g.group_id) AS member_count,
                      coalesce((SELECT seq FROM messages WHERE group_id = m.group_id AND sender_id = m.user_id
                                ORDER BY seq DESC LIMIT 1), 0) AS my_last_sent_seq
               FROM group_members AS m JOIN groups AS g USING (group_id) JOIN group_seq AS s USING (group_id)
               WHERE m.user_id = $1 AND m.group_id > $2
               ORDER BY m.group_id LIMIT $3""",
            user_id,
            after_id,
            limit,
        )
        found = []
        for row in rows:
            unread = unread_of(row["last_seq"], row["last_read_seq"], row["joined_seq"], row["my_last_sent_seq"])
            found.append(
                MyGroup(
                    id=row["group_id"],
                    name=row["name"],
                    announcement=row["announcement"],
                    visibility=row["visibility"],
                    owner_id=row["owner_id"],
                    member_count=row["member_count"],
                    created_at=to_ms(row["created_at"]),
                    version=row["access_version"],
                    role=row["role"],
                    muted_until=mute_of(row["muted_until"], row["now"]),
                    last_seq=row["last_seq"],
                    last_read_seq=row["last_read_seq"],
                    unread=unread,
                    unread_label=unread_label(unread),
                )
            )
        return found

    async def discover(self, user_id: int, pattern: str, before_id: int, limit: int) -> list[FoundGroup]:
        """Open groups whose name is like `pattern`, newest first, without those the user is banned from."""
        rows = await self._postgres.fetch(
            """SELECT g.group_id, g.name, g.visibility,
                      (SELECT count(*) FROM group_members WHERE group_id = g.group_id) AS member_count,
                      EXISTS (SELECT FROM group_members WHERE group_id = g.group_id AND user_id = $1) AS joined
               FROM groups AS g
               WHERE g.visibility = 'open' AND g.disbanded_at IS NULL AND g.group_id < $3 AND g.name ILIKE $2
                 AND NOT EXISTS (SELECT FROM group_bans WHERE group_id = g.group_id AND user_id = $1)
               ORDER BY g.group_id DESC LIMIT $4""",
            user_id,
            pattern,
            before_id,
            limit,
        )
        return [
            FoundGroup(
                id=row["group_id"],
                name=row["name"],
                visibility=row["visibility"],
                member_count=row["member_count"],
                joined=row["joined"],
            )
            for row in rows
        ]

    async def accesses(
        self, user_id: int, group_ids: Sequence[int], within: "Connection | None" = None
    ) -> dict[int, GroupAccess]:
        """The user's membership in those of `group_ids` where there is one."""
        rows = await (within or self._postgres).fetch(
            """SELECT g.group_id, g.name, g.announcement, g.visibility, m.role, s.last_seq
               FROM group_members AS m JOIN groups AS g USING (group_id) JOIN group_seq AS s USING (group_id)
               WHERE m.user_id = $1 AND m.group_id = ANY($2::bigint[])""",
            user_id,
            group_ids,
        )
        return {
            row["group_id"]: GroupAccess(
                group_id=row["group_id"],
                name=row["name"],
                announcement=row["announcement"],
                visibility=row["visibility"],
                role=row["role"],
                last_seq=row["last_seq"],
            )
            for row in rows
        }

    async def update(self, connection: Connection, group_id: int, name: str, announcement: str) -> None:
        """Set name and announcement."""
        await connection.execute(
            "UPDATE groups SET name = $2, announcement = $3 WHERE group_id = $1", group_id, name, announcement
        )

    async def disband(self, connection: Connection, group_id: int) -> list[int]:
        """End the group: nobody is a member any more and no invitation works. Returns who was a member; the messages stay stored."""
        rows = await connection.fetch(
            """WITH ended AS (UPDATE groups SET disbanded_at = now() WHERE group_id = $1),
                    invites AS (DELETE FROM group_invites WHERE group_id = $1),
                    bans AS (DELETE FROM group_bans WHERE group_id = $1)
               DELETE FROM group_members WHERE group_id = $1 RETURNING user_id""",
            group_id,
        )
        return [row["user_id"] for row in rows]

    async def raise_version(self, connection: Connection, group_id: int) -> int:
        """One more change; returns the new `access_version`."""
        version: int = await connection.fetchval(
            "UPDATE group_seq SET access_version = access_version + 1 WHERE group_id = $1 RETURNING access_version",
            group_id,
        )
        return version

    async def audit(
        self,
        connection: Connection,
        action: str,
        *,
        actor_id: int,
        group_id: int,
        target_id: int | None,
        details: Mapping[str, object] | None,
    ) -> None:
        """Write down who did what to whom."""
        await connection.execute(
            """INSERT INTO audit_log (actor_id, action, group_id, target_id, details)
               VALUES ($1, $2, $3, $4, $5::text::jsonb)""",
            actor_id,
            action,
            group_id,
            target_id,
            None if details is None else json.dumps(details),
        )
