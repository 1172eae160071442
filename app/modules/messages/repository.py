"""SQL of messages: one statement per method, bulk forms for batches."""

from collections.abc import Iterable, Mapping, Sequence

from app.modules.messages.models import Key, StoredMessage, to_stored
from app.storage.postgres import Connection, Postgres

COLUMNS = ("group_id", "seq", "message_id", "sender_id", "client_msg_id", "kind", "body", "content_hash", "ts")

Row = tuple[int, int, int, int, object, str, str, bytes, int]
"""Values in the order of COLUMNS."""


class MessageRepository:
    """Methods that take a connection run inside the caller's transaction."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def find_repeats(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, StoredMessage]:
        """Those of `keys` that are stored already."""
        if not keys:
            return {}
        groups, senders, ids = zip(*keys, strict=True)
        # OFFSET 0 keeps this an index look-up per key whatever the statistics say. The sender is compared outside: inside, the index of
        # a sender's messages would seem as good, and each look-up would read all of them.
        rows = await connection.fetch(
            """SELECT m.* FROM unnest($1::bigint[], $2::bigint[], $3::uuid[]) AS k (group_id, sender_id, client_msg_id)
               CROSS JOIN LATERAL (
                   SELECT group_id, sender_id, client_msg_id, seq, message_id, ts, kind, body, content_hash
                   FROM messages
                   WHERE group_id = k.group_id AND client_msg_id = k.client_msg_id
                   OFFSET 0) AS m
               WHERE m.sender_id = k.sender_id""",
            groups,
            senders,
            ids,
        )
        found = (to_stored((r[0], r[1], r[2]), r[3], r[4], r[5], r[6], r[7], r[8]) for r in map(tuple, rows))
        return {message.key: message for message in found}

    async def insert(self, connection: Connection, rows: Iterable[Row]) -> None:
        """Bulk insert by COPY, the cheapest way in."""
        await connection.copy_records_to_table("messages", records=rows, columns=COLUMNS)

    async def items_between(self, ranges: Mapping[int, tuple[int, int]]) -> dict[int, list[bytes]]:
        """Messages as JSON, by group, rising seq; `ranges` is group → (first seq, last seq), both included."""
        groups = list(ranges)
        rows = await self._postgres.fetch(
            """SELECT m.group_id, m.sender_id, m.client_msg_id, m.seq, m.message_id, m.ts, m.kind, m.body, m.content_hash
               FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS r (group_id, first_seq, last_seq)
               CROSS JOIN LATERAL (
                   SELECT * FROM messages
                   WHERE group_id = r.group_id AND seq BETWEEN r.first_seq AND r.last_seq
                   ORDER BY seq OFFSET 0) AS m
               ORDER BY m.group_id, m.seq""",
            groups,
            [ranges[group][0] for group in groups],
            [ranges[group][1] for group in groups],
        )
        found: dict[int, list[bytes]] = {group: [] for group in groups}
        for r in map(tuple, rows):
            found[r[0]].append(to_stored((r[0], r[1], r[2]), r[3], r[4], r[5], r[6], r[7], r[8]).item)
        return found

    async def senders_among(self, group_id: int, user_ids: Sequence[int]) -> list[int]:
        """Those of `user_ids` that wrote in the group, members or not."""
        rows = await self._postgres.fetch(
            """SELECT u.user_id FROM unnest($2::bigint[]) AS u (user_id)
               WHERE EXISTS (SELECT 1 FROM messages WHERE group_id = $1 AND sender_id = u.user_id)""",
            group_id,
            user_ids,
        )
        return [row["user_id"] for row in rows]

    async def write_read_marks(self, marks: Mapping[tuple[int, int], int]) -> list[tuple[int, int, int]]:
        """Move read marks forward, never back nor beyond the last message.

        `marks` is (group_id, user_id) → seq; returns (group_id, user_id, seq) of those that moved.
        """
        keys = sorted(marks)
        rows = await self._postgres.execute(
            """UPDATE group_members AS m SET last_read_seq = least(v.seq, s.last_seq)
               FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS v (group_id, user_id, seq)
               JOIN group_seq AS s USING (group_id)
               WHERE m.group_id = v.group_id AND m.user_id = v.user_id AND least(v.seq, s.last_seq) > m.last_read_seq
               RETURNING m.group_id, m.user_id, m.last_read_seq""",
            [key[0] for key in keys],
            [key[1] for key in keys],
            [marks[key] for key in keys],
        )
        return [(r[0], r[1], r[2]) for r in rows]

    async def epoch(self) -> str:
        """Names this history: changes when the database is restored or replaced, so that clients forget their cursors."""
        row = await self._postgres.fetchrow(
            "SELECT s.system_identifier, c.timeline_id FROM pg_control_system() AS s, pg_control_checkpoint() AS c"
        )
        if row is None:
            raise AssertionError("pg_control_system() returned no row")
        return f"{row[0]:x}-{row[1]}"
