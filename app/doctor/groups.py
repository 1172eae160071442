"""Groups and who is in them."""

from collections.abc import Sequence

from app.doctor.base import Check, Finding, Looked


class GroupRows(Check):
    """Without its narrow row nobody can send to a group."""

    name = "group_rows"
    title = "every group has its row in group_seq"
    unit = "groups"
    advice = "Nobody can send to such a group or see it in a list."
    mends = "make the row, with the highest number that is stored"

    async def look(self, groups: Sequence[int]) -> Looked:
        """A group is made with its row in one statement."""
        rows = await self._source.rows(
            """SELECT g.group_id, s.group_id IS NULL FROM groups AS g LEFT JOIN group_seq AS s USING (group_id)
               WHERE g.group_id = ANY($1::bigint[])""",
            groups,
        )
        return Looked(len(rows), [Finding(row[0], f"group {row[0]}: no row in group_seq") for row in rows if row[1]])

    async def mend(self, findings: Sequence[Finding]) -> None:
        """Nobody holds a lock on a row that is not there, and nobody can store meanwhile."""
        async with self._source.change() as connection:
            # access_version must be higher than any that gateways have seen.
            await connection.execute(
                """INSERT INTO group_seq (group_id, last_seq, access_version)
                   SELECT group_id, coalesce((SELECT max(seq) FROM messages AS m WHERE m.group_id = g.group_id), 0),
                          extract(epoch FROM now())::bigint
                   FROM unnest($1::bigint[]) AS g (group_id) ON CONFLICT DO NOTHING""",
                [finding.subject for finding in findings],
            )


class UnknownGroups(Check):
    """Rows of groups that do not exist."""

    name = "unknown_groups"
    title = "nothing belongs to a group that does not exist"
    unit = "groups"
    advice = (
        "The row in `groups` was lost: nobody sees these messages. Restore the row from a backup (its name, visibility and date); "
        "delete by hand only what you know to be a leftover."
    )

    async def look(self, groups: Sequence[int]) -> Looked:
        """All of it in one snapshot."""
        rows = await self._source.rows(
            """SELECT c.group_id, k.tables FROM unnest($1::bigint[]) AS c (group_id)
               CROSS JOIN LATERAL (
                   SELECT concat_ws(', ',
                       CASE WHEN EXISTS (SELECT FROM messages WHERE group_id = c.group_id) THEN 'messages' END,
                       CASE WHEN EXISTS (SELECT FROM group_seq WHERE group_id = c.group_id) THEN 'group_seq' END,
                       CASE WHEN EXISTS (SELECT FROM group_members WHERE group_id = c.group_id) THEN 'group_members' END,
                       CASE WHEN EXISTS (SELECT FROM search_progress WHERE group_id = c.group_id) THEN 'search_progress' END,
                       CASE WHEN EXISTS (SELECT FROM search_block WHERE group_id = c.group_id) THEN 'search_block' END
                   ) AS tables) AS k
               WHERE NOT EXISTS (SELECT FROM groups WHERE group_id = c.group_id) AND k.tables <> ''""",
            groups,
        )
        return Looked(len(groups), [Finding(row[0], f"group {row[0]}: only in {row[1]}") for row in rows])


class Owners(Check):
    """A group has one owner; a unique index forbids two."""

    name = "owners"
    title = "every group that is not disbanded has one owner"
    unit = "groups"
    advice = (
        "Nobody can manage such a group, and the group lists of its members fail. Decide who shall own it: "
        "`UPDATE group_members SET role = 'owner', muted_until = NULL WHERE group_id = … AND user_id = …`."
    )

    async def look(self, groups: Sequence[int]) -> Looked:
        """Counted in one snapshot."""
        rows = await self._source.rows(
            """SELECT g.group_id, count(m.user_id), count(m.user_id) FILTER (WHERE m.role = 'owner')
               FROM groups AS g LEFT JOIN group_members AS m USING (group_id)
               WHERE g.group_id = ANY($1::bigint[]) AND g.disbanded_at IS NULL GROUP BY g.group_id""",
            groups,
        )
        return Looked(
            len(rows),
            [Finding(row[0], f"group {row[0]}: {row[2]} owners, {row[1]} members") for row in rows if row[2] != 1],
        )


class Members(Check):
    """Who is a member, and may be one."""

    name = "members"
    title = "members are known users, not banned, and of groups that are not disbanded"
    unit = "members"
    advice = (
        "Whoever is a member reads the group. Remove the row of an unknown user or of a disbanded group; for a banned member decide "
        "which of the two rows is right. Raise `group_seq.access_version` of the group in the same transaction."
    )

    async def look(self, groups: Sequence[int]) -> Looked:
        """Everything that may be wrong with a membership, in one snapshot."""
        rows = await self._source.rows(
            """SELECT m.group_id, m.user_id, u.user_id IS NULL, b.user_id IS NOT NULL, g.disbanded_at IS NOT NULL
               FROM group_members AS m LEFT JOIN users AS u USING (user_id) LEFT JOIN groups AS g USING (group_id)
               LEFT JOIN group_bans AS b ON b.group_id = m.group_id AND b.user_id = m.user_id
               WHERE m.group_id = ANY($1::bigint[])
                 AND (u.user_id IS NULL OR b.user_id IS NOT NULL OR g.disbanded_at IS NOT NULL)""",
            groups,
        )
        total = await self._source.rows("SELECT count(*) FROM group_members WHERE group_id = ANY($1::bigint[])", groups)
        return Looked(total[0][0], [Finding(row[0], _wrong(*row)) for row in rows])


def _wrong(group_id: int, user_id: int, unknown: bool, banned: bool, disbanded: bool) -> str:
    parts = {"no such user": unknown, "banned": banned, "the group is disbanded": disbanded}
    return f"group {group_id}, user {user_id}: {', '.join(part for part, is_so in parts.items() if is_so)}"


class ReadMarks(Check):
    """Marks lie between 0 and the head."""

    name = "read_marks"
    title = "nobody has read or joined beyond the last message"
    unit = "members"
    advice = "Such a member is not told of new messages until the group has passed the mark."
    mends = "move the mark back to the last message"

    async def look(self, groups: Sequence[int]) -> Looked:
        """Marks and heads of one snapshot."""
        rows = await self._source.rows(
            """SELECT m.group_id, m.user_id, m.last_read_seq, m.joined_seq, s.last_seq
               FROM group_members AS m JOIN group_seq AS s USING (group_id)
               WHERE m.group_id = ANY($1::bigint[])
                 AND (greatest(m.last_read_seq, m.joined_seq) > s.last_seq OR least(m.last_read_seq, m.joined_seq) < 0)""",
            groups,
        )
        total = await self._source.rows("SELECT count(*) FROM group_members WHERE group_id = ANY($1::bigint[])", groups)
        what = "group {0}, user {1}: read {2}, joined {3}, but the last message is {4}"
        return Looked(total[0][0], [Finding(row[0], what.format(*row)) for row in rows])

    async def mend(self, findings: Sequence[Finding]) -> None:
        """The heads stay locked, so the last message is the last one."""
        groups = sorted({finding.subject for finding in findings})
        async with self._source.change() as connection:
            await connection.execute(
                "SELECT FROM group_seq WHERE group_id = ANY($1::bigint[]) ORDER BY group_id FOR NO KEY UPDATE", groups
            )
            await connection.execute(
                """UPDATE group_members AS m SET last_read_seq = greatest(0, least(m.last_read_seq, s.last_seq)),
                                                 joined_seq = greatest(0, least(m.joined_seq, s.last_seq))
                   FROM group_seq AS s
                   WHERE s.group_id = m.group_id AND m.group_id = ANY($1::bigint[])
                     AND (greatest(m.last_read_seq, m.joined_seq) > s.last_seq OR least(m.last_read_seq, m.joined_seq) < 0)""",
                groups,
            )
