"""SQL of what consumer and gateway ask about many groups at once: one statement per method."""

from collections.abc import Mapping, Sequence

from app.modules.groups.models import Membership
from app.modules.groups.repository import mute_of
from app.storage.postgres import Connection, Postgres


class StateRepository:
    """The narrow rows and memberships, in bulk. Methods that take a connection run inside the caller's transaction."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def lock_seqs(self, connection: Connection, group_ids: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Group → (last_seq, access_version), locked in rising id until the end of the transaction."""
        rows = await connection.fetch(
            """SELECT group_id, last_seq, access_version FROM group_seq
               WHERE group_id = ANY($1::bigint[]) ORDER BY group_id FOR NO KEY UPDATE""",
            group_ids,
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    async def move_seqs(self, connection: Connection, last_seqs: Mapping[int, int]) -> None:
        """Set the heads of locked groups."""
        await connection.execute(
            """UPDATE group_seq AS s SET last_seq = v.last_seq
               FROM unnest($1::bigint[], $2::bigint[]) AS v (group_id, last_seq) WHERE s.group_id = v.group_id""",
            list(last_seqs),
            list(last_seqs.values()),
        )

    async def senders(
        self, connection: Connection, pairs: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], int | None]:
        """Those (group_id, user_id) that are members now, each with the end of its mute in ms since 1970."""
        # LATERAL with LIMIT keeps this an index look-up per pair whatever the statistics of a new table say.
        rows = await connection.fetch(
            """SELECT p.group_id, p.user_id, m.muted_until, statement_timestamp()
               FROM unnest($1::bigint[], $2::bigint[]) AS p (group_id, user_id)
               CROSS JOIN LATERAL (
                   SELECT muted_until FROM group_members
                   WHERE group_id = p.group_id AND user_id = p.user_id LIMIT 1) AS m""",
            [pair[0] for pair in pairs],
            [pair[1] for pair in pairs],
        )
        return {(row[0], row[1]): mute_of(row[2], row[3]) for row in rows}

    async def memberships(self, user_ids: Sequence[int]) -> dict[int, list[Membership]]:
        """The groups of each of these users with their state."""
        rows = await self._postgres.fetch(
            """SELECT m.user_id, m.group_id, s.last_seq, s.access_version
               FROM group_members AS m JOIN group_seq AS s USING (group_id) WHERE m.user_id = ANY($1::bigint[])""",
            user_ids,
        )
        found: dict[int, list[Membership]] = {user_id: [] for user_id in user_ids}
        for user_id, group_id, last_seq, access_version in rows:
            found[user_id].append(Membership(group_id, last_seq, access_version))
        return found

    async def group_ids_of(self, user_ids: Sequence[int]) -> set[int]:
        """Every group one of these users is a member of."""
        rows = await self._postgres.fetch(
            "SELECT DISTINCT group_id FROM group_members WHERE user_id = ANY($1::bigint[])", user_ids
        )
        return {row[0] for row in rows}

    async def members(self, group_ids: Sequence[int]) -> list[tuple[int, int, int, list[int]]]:
        """(group_id, last_seq, access_version, user ids of all members) of groups that are not disbanded, in one snapshot."""
        rows = await self._postgres.fetch(
            """SELECT s.group_id, s.last_seq, s.access_version, m.user_ids
               FROM group_seq AS s JOIN (
                   SELECT group_id, array_agg(user_id) AS user_ids FROM group_members
                   WHERE group_id = ANY($1::bigint[]) GROUP BY group_id) AS m USING (group_id)""",
            group_ids,
        )
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    async def small_groups_of(self, user_ids: Sequence[int], at_most: int) -> list[tuple[int, int]]:
        """(user_id, group_id) of groups of 2 to `at_most` members; of larger ones no more than that is counted."""
        rows = await self._postgres.fetch(
            """WITH mine AS MATERIALIZED (
                   SELECT user_id, group_id FROM group_members WHERE user_id = ANY($1::bigint[]))
               SELECT m.user_id, m.group_id FROM mine AS m JOIN (
                   SELECT group_id FROM (SELECT DISTINCT group_id FROM mine) AS g
                   WHERE (SELECT count(*) FROM (
                       SELECT FROM group_members WHERE group_id = g.group_id LIMIT $2 + 1) AS few) BETWEEN 2 AND $2
               ) AS small USING (group_id)""",
            user_ids,
            at_most,
        )
        return [(row[0], row[1]) for row in rows]

    async def large_among(self, group_ids: Sequence[int], above: int) -> set[int]:
        """Those of the groups that have more than `above` members; no more than that is counted."""
        rows = await self._postgres.fetch(
            """SELECT g.group_id FROM unnest($1::bigint[]) AS g (group_id)
               WHERE (SELECT count(*) FROM (
                   SELECT FROM group_members WHERE group_id = g.group_id LIMIT $2 + 1) AS few) > $2""",
            group_ids,
            above,
        )
        return {row[0] for row in rows}

    async def some_members(self, group_id: int, at_most: int) -> list[int]:
        """User ids, rising."""
        rows = await self._postgres.fetch(
            "SELECT user_id FROM group_members WHERE group_id = $1 ORDER BY user_id LIMIT $2", group_id, at_most
        )
        return [row[0] for row in rows]
