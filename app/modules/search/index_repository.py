"""SQL of keeping the index: one statement per method. Methods that take a connection run inside the caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asyncpg import BitString

from app.modules.search.blocks import Filled
from app.storage.postgres import Connection, Postgres


@dataclass(frozen=True, slots=True)
class NotIndexed:
    """A message on its way into the index; `ts` is ms since 1970, `indexed_seq` how far its group is."""

    group_id: int
    seq: int
    message_id: int
    ts: int
    kind: str
    body: str
    indexed_seq: int


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
            """SELECT m.group_id, m.seq, m.message_id, m.ts, m.kind, m.body, coalesce(p.indexed_seq, 0)
               FROM unnest($1::bigint[]) AS g (group_id) LEFT JOIN search_progress AS p USING (group_id)
               CROSS JOIN LATERAL (
                   SELECT * FROM messages WHERE group_id = g.group_id AND seq > coalesce(p.indexed_seq, 0)
                   ORDER BY seq LIMIT $2) AS m
               LIMIT $2""",
            group_ids,
            most,
        )
        return [NotIndexed(*row) for row in rows]

    async def last_blocks(self, connection: Connection, indexed_seqs: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """Group → (first_seq, words) of the block that ends where the group is indexed up to."""
        rows = await connection.fetch(
            """SELECT b.group_id, b.first_seq, b.words
               FROM unnest($1::bigint[], $2::bigint[]) AS g (group_id, indexed_seq)
               CROSS JOIN LATERAL (
                   SELECT group_id, first_seq, last_seq, words FROM search_block
                   WHERE group_id = g.group_id AND first_seq <= g.indexed_seq ORDER BY first_seq DESC LIMIT 1) AS b
               WHERE b.last_seq = g.indexed_seq""",
            list(indexed_seqs),
            list(indexed_seqs.values()),
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    async def write(self, connection: Connection, blocks: Sequence[Filled]) -> None:
        """New blocks, and what comes to those that are there: their bits are added."""
        await connection.execute(
            """INSERT INTO search_block AS b (group_id, first_seq, last_seq, first_id, last_id, words, signature)
               SELECT * FROM unnest(
                   $1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::int[], $7::varbit[])
               ON CONFLICT (group_id, first_seq) DO UPDATE SET
                   last_seq = excluded.last_seq, first_id = least(b.first_id, excluded.first_id),
                   last_id = greatest(b.last_id, excluded.last_id), words = b.words + excluded.words,
                   signature = b.signature | excluded.signature""",
            [block.group_id for block in blocks],
            [block.first_seq for block in blocks],
            [block.last_seq for block in blocks],
            [block.first_id for block in blocks],
            [block.last_id for block in blocks],
            [block.words for block in blocks],
            [BitString.frombytes(block.flags.packed()) for block in blocks],
        )

    async def move(self, connection: Connection, indexed_seqs: Mapping[int, int]) -> None:
        """Everything up to these is indexed."""
        await connection.execute(
            """INSERT INTO search_progress (group_id, indexed_seq)
               SELECT * FROM unnest($1::bigint[], $2::bigint[])
               ON CONFLICT (group_id) DO UPDATE SET indexed_seq = excluded.indexed_seq""",
            list(indexed_seqs),
            list(indexed_seqs.values()),
        )
