"""SQL of keeping the index: one statement per method. Methods that take a connection run inside the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.storage.postgres import Connection, Postgres


@dataclass(frozen=True, slots=True)
class NotIndexed:
    """A message on its way into the index; `ts` is ms since 1970."""

    group_id: int
    seq: int
    message_id: int
    ts: int
    kind: str
    body: str


class IndexRepository:
    """What is behind, and moving it forward."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def behind(self, most: int) -> list[tuple[int, int]]:
        """(group_id, messages not indexed) of at most `most` groups; the fewest first: new ones before old histories."""
        rows = await self._postgres.fetch(
            """SELECT s.group_id, s.last_seq - coalesce(p.indexed_seq, 0) AS missing
               FROM group_seq AS s LEFT JOIN search_progress AS p USING (group_id)
               WHERE s.last_seq > coalesce(p.indexed_seq, 0) ORDER BY missing, s.group_id LIMIT $1""",
            most,
        )
        return [(row[0], row[1]) for row in rows]

    async def lock(self, connection: Connection) -> bool:
        """One indexer at a time, until the end of the transaction. False: another one is at it."""
        # Whoever loses the newest of these commits finds its messages not indexed and does them again: nothing to wait for the disk for.
        await connection.execute("SET LOCAL synchronous_commit = off")
        locked: bool = await connection.fetchval(
            "SELECT pg_try_advisory_xact_lock(hashtextextended('search index', 0))"
        )
        return locked

    async def read(self, connection: Connection, group_ids: Sequence[int], most: int) -> list[NotIndexed]:
        """Up to `most` messages that follow what is indexed, by group, rising seq."""
        rows = await connection.fetch(
            """SELECT m.group_id, m.seq, m.message_id, m.ts, m.kind, m.body
               FROM unnest($1::bigint[]) AS g (group_id) LEFT JOIN search_progress AS p USING (group_id)
               CROSS JOIN LATERAL (
                   SELECT * FROM messages WHERE group_id = g.group_id AND seq > coalesce(p.indexed_seq, 0)
                   ORDER BY seq LIMIT $2) AS m
               LIMIT $2""",
            group_ids,
            most,
        )
        return [NotIndexed(*row) for row in rows]

    async def insert(self, connection: Connection, rows: Sequence[tuple[int, int, int, str]]) -> None:
        """(group_id, message_id, seq, folded) into the index. Emptying search_progress has everything indexed again."""
        await connection.execute(
            """INSERT INTO message_search (group_id, message_id, seq, folded)
               SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[])
               ON CONFLICT (group_id, message_id) DO UPDATE SET folded = excluded.folded""",
            *([row[column] for row in rows] for column in range(4)),
        )

    async def move(self, connection: Connection, indexed_seqs: dict[int, int]) -> None:
        """Everything up to these is indexed."""
        await connection.execute(
            """INSERT INTO search_progress (group_id, indexed_seq)
               SELECT * FROM unnest($1::bigint[], $2::bigint[])
               ON CONFLICT (group_id) DO UPDATE SET indexed_seq = excluded.indexed_seq""",
            list(indexed_seqs),
            list(indexed_seqs.values()),
        )
