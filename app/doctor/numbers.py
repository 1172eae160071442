"""Numbers: dense in PostgreSQL, and the counter in Redis."""

from collections.abc import Sequence

from app.consumer.proposer import Proposer
from app.doctor.base import Check, Finding, Looked, Source

LOCATED_MAX = 5
"""Groups of a chunk in which holes are looked for; one scan of the group each."""
HOLES_SHOWN = 3


class Heads(Check):
    """The number that the next message follows."""

    name = "heads"
    title = "last_seq is not below the highest number stored"
    unit = "groups"
    advice = "New messages of the group would get a number that is taken, and end as dead letters."
    mends = "raise last_seq to the highest number stored"

    async def look(self, groups: Sequence[int]) -> Looked:
        """Head and messages of one snapshot."""
        rows = await self._source.rows(
            """SELECT s.group_id, s.last_seq, m.last
               FROM group_seq AS s
               CROSS JOIN LATERAL (SELECT max(seq) AS last FROM messages WHERE group_id = s.group_id) AS m
               WHERE s.group_id = ANY($1::bigint[])""",
            groups,
        )
        what = "group {0}: last_seq is {1}, but message {2} is stored"
        return Looked(len(rows), [Finding(row[0], what.format(*row)) for row in rows if (row[2] or 0) > row[1]])

    async def mend(self, findings: Sequence[Finding]) -> None:
        """The rows are locked as by a batch; a statement of its own then sees all that batches before it have stored."""
        groups = sorted(finding.subject for finding in findings)
        async with self._source.change() as connection:
            await connection.execute(
                "SELECT FROM group_seq WHERE group_id = ANY($1::bigint[]) ORDER BY group_id FOR NO KEY UPDATE", groups
            )
            await connection.execute(
                """UPDATE group_seq AS s SET last_seq = m.last
                   FROM unnest($1::bigint[]) AS g (group_id)
                   CROSS JOIN LATERAL (SELECT max(seq) AS last FROM messages WHERE group_id = g.group_id) AS m
                   WHERE s.group_id = g.group_id AND m.last > s.last_seq""",
                groups,
            )


class Numbers(Check):
    """No hole, and nothing missing at the end."""

    name = "numbers"
    title = "numbers are dense, from 1 to last_seq"
    unit = "messages"
    advice = (
        "Acked messages are gone: somebody deleted them, or the database lost what it had confirmed (fsync off, a failing disk, a "
        "standby that was behind). Clients pull the hole in vain. Restore a backup beside this database and copy the missing rows of "
        "`messages` over with their own numbers; if there is none, tell the members. Never renumber: clients hold the old numbers."
    )

    async def look(self, groups: Sequence[int]) -> Looked:
        """Counted in one snapshot; `seq` is unique, so count and ends tell."""
        rows = await self._source.rows(
            """SELECT g.group_id, coalesce(s.last_seq, 0), m.count, coalesce(m.first, 1), coalesce(m.last, 0)
               FROM unnest($1::bigint[]) AS g (group_id)
               CROSS JOIN LATERAL (
                   SELECT count(*), min(seq) AS first, max(seq) AS last FROM messages WHERE group_id = g.group_id) AS m
               LEFT JOIN group_seq AS s USING (group_id)""",
            groups,
        )
        findings: list[Finding] = []
        for group_id, last_seq, count, first, last in rows:
            if first == 1 and count == last >= last_seq:
                continue
            missing = max(1, max(last, last_seq) - count)
            where = await self._holes(group_id, last, last_seq) if len(findings) < LOCATED_MAX else "somewhere"
            findings.append(Finding(group_id, f"group {group_id}: {missing} missing, {where}", missing))
        return Looked(sum(row[2] for row in rows), findings)

    async def _holes(self, group_id: int, last: int, last_seq: int) -> str:
        rows = await self._source.rows(
            """SELECT before + 1, seq - 1
               FROM (SELECT seq, lag(seq, 1, 0::bigint) OVER (ORDER BY seq) AS before FROM messages WHERE group_id = $1) AS m
               WHERE seq <> before + 1 ORDER BY seq LIMIT $2""",
            group_id,
            HOLES_SHOWN,
        )
        holes = [f"{row[0]} to {row[1]}" for row in rows]
        if last < last_seq:
            holes.append(f"{last + 1} to {last_seq} at the end")
        return ", ".join(holes)


class Counters(Check):
    """What Redis would propose next."""

    name = "counters"
    title = "Redis and PostgreSQL agree on the last number (no counter is fine)"
    unit = "groups"
    advice = (
        "PostgreSQL decides, and the next message of the group puts a wrong number right. A counter that is no number at all holds up "
        "the whole consumer: mend it."
    )
    mends = "set the counter to last_seq, unless it moves meanwhile"

    def __init__(self, source: Source, proposer: Proposer) -> None:
        super().__init__(source)
        self._proposer = proposer

    async def look(self, groups: Sequence[int]) -> Looked:
        """A proposal is ahead until its batch is committed, and a batch may commit between the two looks."""
        return Looked(len(groups), await self._source.settled(await self._compare(groups), self._compare))

    async def _compare(self, groups: Sequence[int]) -> list[Finding]:
        counters = await self._proposer.counters(groups)
        heads = await self._heads(list(counters))
        return [
            Finding(group, f"group {group}: Redis has {value}, PostgreSQL {heads.get(group, 0)}", seen=value)
            for group, value in counters.items()
            if value != str(heads.get(group, 0))
        ]

    async def mend(self, findings: Sequence[Finding]) -> None:
        """While the heads are locked no batch of these groups commits; a proposal that was made meanwhile lets the counter be."""
        seen = {finding.subject: finding.seen for finding in findings}
        async with self._source.change() as connection:
            rows = await connection.fetch(
                """SELECT group_id, last_seq FROM group_seq WHERE group_id = ANY($1::bigint[])
                   ORDER BY group_id FOR NO KEY UPDATE""",
                sorted(seen),
            )
            # What is no number cannot be compared nor proposed from; without a counter the next proposal makes one.
            await self._proposer.drop([group for group, value in seen.items() if not value.isdecimal()])
            await self._proposer.replace(
                {group: value for group, value in seen.items() if value.isdecimal()}, {row[0]: row[1] for row in rows}
            )

    async def _heads(self, groups: Sequence[int]) -> dict[int, int]:
        rows = await self._source.rows(
            "SELECT group_id, last_seq FROM group_seq WHERE group_id = ANY($1::bigint[])", groups
        )
        return {row[0]: row[1] for row in rows}
