"""SQL of searching: one statement per method."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from asyncpg import BitString, Record

from app.modules.messages.models import to_stored
from app.modules.search.models import Block, Text
from app.storage.postgres import Connection, Postgres

OUT_OF_ORDER_MAX = 1000
"""Messages of a group with ids below that of an older one: seconds of a busy one, whose partition moved to a machine with a slow clock."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as its JSON, with what is searched in."""

    message_id: int
    item: bytes
    body: str


class SearchRepository:
    """Reads. Group ids are those of the caller; `before` is a message id that is no longer wanted, nor any above."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """What is read on it is of one moment."""
        async with self._postgres.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection

    async def not_indexed(self, connection: Connection, group_ids: Sequence[int], before: int, most: int) -> list[Text]:
        """Messages that the index does not know yet, the `most` with the highest ids, falling."""
        return _texts(
            await connection.fetch(
                """SELECT m.message_id, m.group_id, m.seq, m.body FROM unnest($1::bigint[]) AS g (group_id)
                   JOIN group_seq AS s USING (group_id) LEFT JOIN search_progress AS p USING (group_id)
                   CROSS JOIN LATERAL (
                       SELECT message_id, group_id, seq, body FROM messages
                       WHERE group_id = g.group_id AND seq > coalesce(p.indexed_seq, 0) AND message_id < $2 AND kind = 'text'
                       ORDER BY seq DESC LIMIT $4) AS m
                   WHERE s.last_seq > coalesce(p.indexed_seq, 0)
                   ORDER BY m.message_id DESC LIMIT $3""",
                group_ids,
                before,
                most,
                most + OUT_OF_ORDER_MAX,
            )
        )

    async def blocks(
        self,
        connection: Connection,
        group_ids: Sequence[int],
        before: int,
        signature: bytes,
        bits: Sequence[int],
        most: int,
    ) -> list[Block]:
        """Blocks that have all bits of the signature, `last_id` falling: those that reach beyond `before`, and at most `most` others.

        `bits` are four of the signature's: looking at them in their place spares the others for nearly every block.
        """
        rows = await connection.fetch(
            # OFFSET makes PostgreSQL go through the groups by the primary key, so that no signature of another group is looked at.
            """WITH matching AS MATERIALIZED (
                   SELECT b.* FROM unnest($1::bigint[]) AS g (group_id) CROSS JOIN LATERAL (
                       SELECT group_id, first_seq, last_seq, last_id FROM search_block
                       WHERE group_id = g.group_id AND first_id < $2
                           AND get_bit(signature, $4) = 1 AND get_bit(signature, $5) = 1
                           AND get_bit(signature, $6) = 1 AND get_bit(signature, $7) = 1
                           AND signature & $3::varbit = $3::varbit
                       OFFSET 0) AS b)
               SELECT group_id, first_seq, last_seq, last_id FROM matching
               ORDER BY last_id DESC LIMIT $8 + (SELECT count(*) FROM matching WHERE last_id >= $2)""",
            group_ids,
            before,
            BitString.frombytes(signature),
            *bits,
            most,
        )
        return [Block(*row) for row in rows]

    async def texts(self, blocks: Sequence[Block], before: int) -> list[Text]:
        """The texts of these blocks."""
        return _texts(
            await self._postgres.fetch(
                """SELECT m.message_id, m.group_id, m.seq, m.body
                   FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS b (group_id, first_seq, last_seq)
                   CROSS JOIN LATERAL (
                       SELECT message_id, group_id, seq, body FROM messages
                       WHERE group_id = b.group_id AND seq BETWEEN b.first_seq AND b.last_seq AND message_id < $4 AND kind = 'text'
                       OFFSET 0) AS m""",
                [block.group_id for block in blocks],
                [block.first_seq for block in blocks],
                [block.last_seq for block in blocks],
                before,
            )
        )

    async def messages(self, found: Sequence[Text]) -> list[Stored]:
        """These messages, newest first."""
        rows = await self._postgres.fetch(
            """SELECT m.group_id, m.sender_id, m.client_msg_id, m.seq, m.message_id, m.ts, m.kind, m.body, m.content_hash
               FROM unnest($1::bigint[], $2::bigint[]) AS h (group_id, seq)
               CROSS JOIN LATERAL (
                   SELECT * FROM messages WHERE group_id = h.group_id AND seq = h.seq LIMIT 1) AS m
               ORDER BY m.message_id DESC""",
            [text.group_id for text in found],
            [text.seq for text in found],
        )
        stored = []
        for r in map(tuple, rows):
            message = to_stored((r[0], r[1], r[2]), r[3], r[4], r[5], r[6], r[7], r[8])
            stored.append(Stored(message.message_id, message.item, r[7]))
        return stored


def _texts(rows: Sequence[Record]) -> list[Text]:
    return [Text(*row) for row in rows]
