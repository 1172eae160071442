"""The search index against the messages."""

from collections.abc import Sequence

from asyncpg import Record

from app.doctor.base import Check, Finding, Looked
from app.modules.messages.models import KIND_TEXT
from app.modules.search.folding import fold
from app.modules.search.signatures import Flags, Signer
from app.modules.search.turns import Breaths

LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('search index', 0))"
"""Held by an indexer while it works."""
BLOCKS_AT_ONCE = 200
"""In memory, with their messages."""


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
    """The blocks are whole, and their signatures say what is in their messages."""

    name = "search_index"
    title = "up to the progress every message is in one block, whose signature has all its words"
    unit = "messages"
    advice = "Searches miss messages."
    mends = "forget the index of the group; the indexer makes it again"

    async def look(self, groups: Sequence[int]) -> Looked:
        """The blocks of one snapshot; then each with its messages, which do not change."""
        found = await self._follow_each_other(groups)
        looked_at, lacking = await self._know_their_messages(groups)
        return Looked(looked_at, found + lacking)

    async def _follow_each_other(self, groups: Sequence[int]) -> list[Finding]:
        findings = []
        for group_id, indexed, last, wrong, first in await self._source.rows(
            """SELECT g.group_id, coalesce(p.indexed_seq, 0), coalesce(b.last, 0), b.wrong, b.first
               FROM unnest($1::bigint[]) AS g (group_id) LEFT JOIN search_progress AS p USING (group_id)
               CROSS JOIN LATERAL (
                   SELECT max(last_seq) AS last, count(*) FILTER (WHERE first_seq <> before + 1) AS wrong,
                          min(first_seq) FILTER (WHERE first_seq <> before + 1) AS first
                   FROM (SELECT first_seq, last_seq, lag(last_seq, 1, 0::bigint) OVER (ORDER BY first_seq) AS before
                         FROM search_block WHERE group_id = g.group_id) AS c) AS b""",
            groups,
        ):
            if indexed != last:
                what = f"group {group_id}: indexed up to {indexed}, but its blocks end at {last}"
                findings.append(Finding(group_id, what))
            if wrong:
                what = f"group {group_id}: {wrong} blocks do not follow the one before, the first begins at {first}"
                findings.append(Finding(group_id, what, wrong))
        return findings

    async def _know_their_messages(self, groups: Sequence[int]) -> tuple[int, list[Finding]]:
        """Also the number of messages."""
        looked_at = 0
        lacking: dict[int, list[int]] = {}
        signer, breaths = Signer(), Breaths()
        after = (-(1 << 63), 0)
        while blocks := await self._source.rows(
            """SELECT group_id, first_seq, last_seq, first_id, last_id, signature FROM search_block
               WHERE group_id = ANY($1::bigint[]) AND (group_id, first_seq) > ($2, $3)
               ORDER BY group_id, first_seq LIMIT $4""",
            groups,
            *after,
            BLOCKS_AT_ONCE,
        ):
            after = (blocks[-1][0], blocks[-1][1])
            for message in await self._source.rows(
                """SELECT b.number, m.seq, m.message_id, m.kind, m.body
                   FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS b (group_id, first, last, number)
                   CROSS JOIN LATERAL (
                       SELECT seq, message_id, kind, body FROM messages
                       WHERE group_id = b.group_id AND seq BETWEEN b.first AND b.last OFFSET 0) AS m
                   ORDER BY b.number, m.seq""",
                *([block[column] for block in blocks] for column in range(3)),
            ):
                looked_at += 1
                block = blocks[message[0] - 1]
                if not _knows(block, message, signer):
                    lacking.setdefault(block[0], []).append(message[1])
                await breaths.take()
        what = "group {}: {} messages that their block does not know, the first is {}"
        return looked_at, [
            Finding(group_id, what.format(group_id, len(seqs), seqs[0]), len(seqs))
            for group_id, seqs in lacking.items()
        ]

    async def mend(self, findings: Sequence[Finding]) -> None:
        """Beside no indexer. Blocks are made from messages, so nothing is lost with them; until then searches read the messages."""
        groups = sorted({finding.subject for finding in findings})
        async with self._source.change() as connection:
            await connection.execute(LOCK)
            await connection.execute("DELETE FROM search_progress WHERE group_id = ANY($1::bigint[])", groups)
            await connection.execute("DELETE FROM search_block WHERE group_id = ANY($1::bigint[])", groups)


def _knows(block: Record, message: Record, signer: Signer) -> bool:
    if not block[3] <= message[2] <= block[4]:
        return False
    if message[3] != KIND_TEXT:
        return True
    flags = Flags()
    signer.sign(fold(message[4]), flags)
    signature = int.from_bytes(block[5].bytes)
    return int.from_bytes(flags.packed()) & ~signature == 0


def _behind(messages: int) -> str:
    return f"{messages} messages are waiting to be indexed" if messages > 0 else ""
