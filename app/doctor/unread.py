"""Unread figures: the arithmetic of the group list against counting."""

from collections.abc import Sequence

from app.doctor.base import Check, Finding, Looked, Source
from app.modules.groups.repository import GroupRepository

PER_GROUP = 3
COUNTED_MAX = 100_000
"""Messages counted for one member at most; far above what is shown as 99+."""


class Unread(Check):
    """The list computes unread from numbers; counting the messages must give the same."""

    name = "unread"
    title = "unread figures of the group list equal a count of the messages"
    unit = "members"
    advice = "Follows from a hole in the numbers, a wrong mark or a missing owner; see those."

    def __init__(self, source: Source, groups: GroupRepository, *, members_max: int) -> None:
        """At most `members_max` members are looked at in all, the first three of each group."""
        super().__init__(source)
        self._groups = groups
        self._left = members_max

    async def look(self, groups: Sequence[int]) -> Looked:
        """List and count in one snapshot, one list entry at a time: it is the application's own query."""
        findings: list[Finding] = []
        if self._left <= 0:
            return Looked(0, [], "a sample: not all members were looked at")
        async with self._source.snapshot() as connection:
            rows = await connection.fetch(
                """SELECT m.group_id, m.user_id, c.unread
                   FROM unnest($1::bigint[]) AS g (group_id)
                   CROSS JOIN LATERAL (
                       SELECT * FROM group_members WHERE group_id = g.group_id ORDER BY user_id LIMIT $2) AS m
                   CROSS JOIN LATERAL (
                       SELECT count(*) AS unread FROM (
                           SELECT FROM messages
                           WHERE group_id = m.group_id AND seq > greatest(m.joined_seq, m.last_read_seq, (
                               SELECT max(seq) FROM messages WHERE group_id = m.group_id AND sender_id = m.user_id))
                           LIMIT $4 + 1) AS later) AS c
                   LIMIT $3""",
                groups,
                PER_GROUP,
                self._left,
                COUNTED_MAX,
            )
            for group_id, user_id, counted in rows:
                try:
                    listed = await self._groups.list_mine(user_id, group_id - 1, 1, connection)
                except ValueError:  # it cannot be shown
                    findings.append(Finding(group_id, f"group {group_id}, user {user_id}: the list cannot be made"))
                    continue
                if not listed or listed[0].id != group_id:
                    continue  # a group without its rows; another check says so
                if min(listed[0].unread, COUNTED_MAX + 1) != counted:
                    what = f"group {group_id}, user {user_id}: {listed[0].unread} in the list, {counted} counted"
                    findings.append(Finding(group_id, what))
        self._left -= len(rows)
        return Looked(len(rows), findings, "a sample: the first members of each group")
