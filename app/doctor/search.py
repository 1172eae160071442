"""The search index against the messages."""

from collections.abc import Sequence

from app.doctor.base import Check, Finding, Looked

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('search index', 0))"
"""Held by an indexer while it works."""


class SearchProgress(Check):
    """How far each group is indexed."""

    name = "search_progress"
    title = "no group is indexed beyond its last message"
    unit = "groups"
    advice = "Messages up to there would never be found. It happens when tables are restored from different moments."
    mends = "move the progress back to last_seq"

    async def look(self, groups: Sequence[int]) -> Looked:
        """Progress and head of one snapshot: the indexer reads only what is committed."""
        rows = await self._source.rows(
            """SELECT p.group_id, p.indexed_seq, s.last_seq
               FROM search_progress AS p JOIN group_seq AS s USING (group_id) WHERE p.group_id = ANY($1::bigint[])""",
            groups,
        )
        what = "group {0}: indexed up to {1}, but the last message is {2}"
        return Looked(
            len(rows),
            [Finding(row[0], what.format(*row)) for row in rows if row[1] > row[2] or row[1] < 0],
            _behind(sum(row[2] - row[1] for row in rows)),
        )

    async def mend(self, findings: Sequence[Finding]) -> None:
        """Beside no indexer."""
        async with self._source.change() as connection:
            await connection.execute(LOCK)
            await connection.execute(
                """UPDATE search_progress AS p SET indexed_seq = greatest(0, least(p.indexed_seq, s.last_seq))
                   FROM group_seq AS s WHERE s.group_id = p.group_id AND p.group_id = ANY($1::bigint[])""",
                sorted(finding.subject for finding in findings),
            )


class SearchIndex(Check):
    """What should be in the index is, and nothing else."""

    name = "search_index"
    title = "up to the progress every text is in the search index, once, and nothing else"
    unit = "messages"
    advice = "Searches miss messages, or find some that are not there."
    mends = "take wrong entries out of the index and let the indexer do the group again from there"

    async def look(self, groups: Sequence[int]) -> Looked:
        """Index and messages of one snapshot, compared both ways."""
        missing = await self._source.rows(
            """SELECT m.group_id, count(*), count(*) FILTER (WHERE i.seq IS DISTINCT FROM m.seq),
                      min(m.seq) FILTER (WHERE i.seq IS DISTINCT FROM m.seq)
               FROM messages AS m JOIN search_progress AS p ON p.group_id = m.group_id AND m.seq <= p.indexed_seq
               LEFT JOIN message_search AS i ON i.group_id = m.group_id AND i.message_id = m.message_id
               WHERE m.group_id = ANY($1::bigint[]) AND m.kind = 'text' GROUP BY m.group_id""",
            groups,
        )
        extra = await self._source.rows(
            """SELECT i.group_id, count(*), min(i.seq)
               FROM message_search AS i LEFT JOIN messages AS m ON m.group_id = i.group_id AND m.seq = i.seq
               WHERE i.group_id = ANY($1::bigint[]) AND m.message_id IS DISTINCT FROM i.message_id GROUP BY i.group_id""",
            groups,
        )
        findings = [
            Finding(row[0], f"group {row[0]}: {row[2]} not in the index, the first is {row[3]}", row[2])
            for row in missing
            if row[2]
        ]
        findings += [
            Finding(row[0], f"group {row[0]}: {row[1]} entries without their message, the first says {row[2]}", row[1])
            for row in extra
        ]
        return Looked(sum(row[1] for row in missing), findings)

    async def mend(self, findings: Sequence[Finding]) -> None:
        """Beside no indexer. Entries are made from messages, so nothing is lost with them."""
        groups = sorted({finding.subject for finding in findings})
        async with self._source.change() as connection:
            await connection.execute(LOCK)
            await connection.execute(
                """DELETE FROM message_search AS i WHERE i.group_id = ANY($1::bigint[]) AND NOT EXISTS (
                       SELECT FROM messages WHERE group_id = i.group_id AND seq = i.seq AND message_id = i.message_id)""",
                groups,
            )
            await connection.execute(
                """UPDATE search_progress AS p SET indexed_seq = least(p.indexed_seq, m.first - 1)
                   FROM (SELECT m.group_id, min(m.seq) AS first FROM messages AS m
                         WHERE m.group_id = ANY($1::bigint[]) AND m.kind = 'text' AND NOT EXISTS (
                             SELECT FROM message_search WHERE group_id = m.group_id AND message_id = m.message_id)
                         GROUP BY m.group_id) AS m
                   WHERE p.group_id = m.group_id""",
                groups,
            )


def _behind(messages: int) -> str:
    return f"{messages} messages are waiting to be indexed" if messages > 0 else ""
