"""SQL of searching: one statement per method."""

from collections.abc import Sequence
from dataclasses import dataclass

from asyncpg import Record

from app.modules.messages.models import to_stored
from app.modules.search.models import Hit, Run
from app.storage.postgres import Postgres

_MESSAGE = "m.group_id, m.sender_id, m.client_msg_id, m.seq, m.message_id, m.ts, m.kind, m.body, m.content_hash"


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as its JSON, with what is searched in."""

    message_id: int
    item: bytes
    body: str


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest indexed messages of each group.

    `hits` are all with ids from `floor` on, at most as many as asked for. Below `floor` a group may have more than was looked at;
    0: there is nothing below. `top` is the newest id. `looked` messages were looked at, `matching` of them match.
    """

    hits: list[Hit]
    floor: int
    top: int
    looked: int
    matching: int


class SearchRepository:
    """Reads. Group ids are those of the caller; `before` is a message id that is no longer wanted, nor any above."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def not_indexed(self, group_ids: Sequence[int], before: int, most: int) -> list[Stored]:
        """Messages that the index does not know yet, newest first."""
        return _stored(
            await self._postgres.fetch(
                f"""SELECT {_MESSAGE} FROM unnest($1::bigint[]) AS g (group_id)
                    JOIN group_seq AS s USING (group_id) LEFT JOIN search_progress AS p USING (group_id)
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages
                        WHERE group_id = g.group_id AND seq > coalesce(p.indexed_seq, 0) AND message_id < $2 AND kind = 'text'
                        ORDER BY seq DESC LIMIT $3) AS m
                    WHERE s.last_seq > coalesce(p.indexed_seq, 0)
                    ORDER BY m.message_id DESC LIMIT $3""",  # noqa: S608 - a constant
                group_ids,
                before,
                most,
            )
        )

    async def newest(
        self, group_ids: Sequence[int], before: int, patterns: Sequence[str], per_group: int, most: int
    ) -> Newest:
        """Look through the newest `per_group` messages of each group."""
        rows = await self._postgres.fetch(
            """WITH newest AS MATERIALIZED (
                   SELECT m.group_id, m.message_id, m.seq, m.folded COLLATE "C" ~ ALL($3::text[]) AS matches
                   FROM unnest($1::bigint[]) AS g (group_id)
                   CROSS JOIN LATERAL (
                       SELECT * FROM message_search WHERE group_id = g.group_id AND message_id < $2
                       ORDER BY message_id DESC LIMIT $4) AS m),
               whole AS (
                   SELECT coalesce(max(g.first), 0) AS floor, coalesce(max(g.top), 0) AS top,
                       coalesce(sum(g.looked), 0)::bigint AS looked, coalesce(sum(g.matching), 0)::bigint AS matching
                   FROM (
                       SELECT CASE WHEN count(*) = $4 THEN min(message_id) ELSE 0 END AS first, max(message_id) AS top,
                           count(*) AS looked, count(*) FILTER (WHERE matches) AS matching
                       FROM newest GROUP BY group_id) AS g)
               SELECT w.floor, w.top, w.looked, w.matching, n.message_id, n.group_id, n.seq
               FROM whole AS w LEFT JOIN newest AS n ON n.matches AND n.message_id >= w.floor
               ORDER BY n.message_id DESC LIMIT $5""",
            group_ids,
            before,
            patterns,
            per_group,
            most,
        )
        hits = [Hit(row[4], row[5], row[6]) for row in rows if row[4] is not None]
        return Newest(hits, *rows[0][:4])

    async def between(
        self, group_ids: Sequence[int], first: int, before: int, patterns: Sequence[str], most: int
    ) -> list[Hit]:
        """Look through all messages with ids from `first` on, newest first."""
        rows = await self._postgres.fetch(
            """SELECT m.message_id, m.group_id, m.seq FROM unnest($1::bigint[]) AS g (group_id)
               CROSS JOIN LATERAL (
                   SELECT * FROM message_search
                   WHERE group_id = g.group_id AND message_id >= $2 AND message_id < $3
                       AND folded COLLATE "C" ~ ALL($4::text[])
                   ORDER BY message_id DESC LIMIT $5) AS m
               ORDER BY m.message_id DESC LIMIT $5""",
            group_ids,
            first,
            before,
            patterns,
            most,
        )
        return [Hit(*row) for row in rows]

    async def indexed(
        self, group_ids: Sequence[int], before: int, patterns: Sequence[str], runs: Sequence[Run], most: int
    ) -> list[Hit]:
        """Look the runs up in the index, newest first."""
        async with self._postgres.transaction() as connection:
            # How rare the words are decides whether the groups are worth a look at their own index, too: plan for these very words.
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            rows = await connection.fetch(
                """SELECT message_id, group_id, seq FROM message_search
                   WHERE search_vector(folded) @@ search_query($4::text[], $5::boolean[]) AND group_id = ANY($1::bigint[])
                       AND message_id < $2 AND folded COLLATE "C" ~ ALL($3::text[])
                   ORDER BY message_id DESC LIMIT $6""",
                group_ids,
                before,
                patterns,
                [run.text for run in runs],
                [run.prefix for run in runs],
                most,
            )
        return [Hit(*row) for row in rows]

    async def messages(self, hits: Sequence[Hit]) -> list[Stored]:
        """These messages, newest first."""
        return _stored(
            await self._postgres.fetch(
                f"""SELECT {_MESSAGE} FROM unnest($1::bigint[], $2::bigint[]) AS h (group_id, seq)
                    CROSS JOIN LATERAL (
                        SELECT * FROM messages WHERE group_id = h.group_id AND seq = h.seq LIMIT 1) AS m
                    ORDER BY m.message_id DESC""",  # noqa: S608 - a constant
                [hit.group_id for hit in hits],
                [hit.seq for hit in hits],
            )
        )


def _stored(rows: Sequence[Record]) -> list[Stored]:
    found = []
    for r in map(tuple, rows):
        message = to_stored((r[0], r[1], r[2]), r[3], r[4], r[5], r[6], r[7], r[8])
        found.append(Stored(message.message_id, message.item, r[7]))
    return found
