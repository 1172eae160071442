"""SQL of dead letters as an operator looks at them: one statement per method."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import DecodeError

from app.protocol.magpie_pb2 import Envelope, Head
from app.storage.postgres import Connection, Postgres

CLAIMED, REPLAYED, DROPPED = "dead_letter_claimed", "dead_letter_replayed", "dead_letter_dropped"
"""Actions in the audit log."""
AUDIT_LOOK_BACK = 1000
"""Numbers of the audit log become visible in another order than they were given out, but never this far apart in practice."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A send that was put aside; `envelope` is what stood in the log."""

    id: int
    at: datetime
    broker: str
    partition: int
    position: str
    reason: str
    envelope: bytes

    @property
    def decoded(self) -> Envelope | None:
        """Its fields; None when it is no envelope."""
        try:
            return Envelope.FromString(self.envelope)
        except DecodeError:
            return None


class DeadLetterTable:
    """The table `dead_letters` and what becomes of its rows. Methods raise Busy when PostgreSQL is away."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def page(self, after_id: int, limit: int) -> list[DeadLetter]:
        """Those with an id above `after_id`, oldest first."""
        rows = await self._postgres.fetch(
            """SELECT dead_letter_id, at, broker, partition, position, reason, envelope FROM dead_letters
               WHERE dead_letter_id > $1 ORDER BY dead_letter_id LIMIT $2""",
            after_id,
            limit,
        )
        return [DeadLetter(*row) for row in rows]

    async def find(self, letter_id: int) -> DeadLetter | None:
        """One of them."""
        found = await self.page(letter_id - 1, 1)
        return found[0] if found and found[0].id == letter_id else None

    async def waiting(self) -> tuple[int, float]:
        """How many there are, and the age of the oldest in seconds; 0 without one."""
        row = await self._postgres.fetchrow(
            "SELECT count(*), coalesce(extract(epoch FROM now() - min(at)), 0)::float8 FROM dead_letters"
        )
        return (0, 0.0) if row is None else (row[0], row[1])

    async def newest_id(self) -> int:
        """The highest id there is; 0 without one."""
        newest: int = await self._postgres.fetchval("SELECT coalesce(max(dead_letter_id), 0) FROM dead_letters")
        return newest

    async def claim(self, connection: Connection, letter_id: int, group_id: int) -> bool:
        """Hold one until the end of the transaction that may store its message, and write that down in it.

        False: it is gone, or another operator holds it.
        """
        noted = await connection.fetchval(
            """WITH held AS (SELECT dead_letter_id FROM dead_letters WHERE dead_letter_id = $1 FOR UPDATE SKIP LOCKED)
               INSERT INTO audit_log (action, group_id, details)
               SELECT $2, $3, jsonb_build_object('dead_letter_id', dead_letter_id) FROM held RETURNING audit_id""",
            letter_id,
            CLAIMED,
            group_id,
        )
        return noted is not None

    async def remove_replayed(self, letter_id: int, group_id: int, sender_id: int, seq: int) -> None:
        """Its message is stored as `seq`: remove it, and whoever does writes down that it was replayed."""
        await self._postgres.execute(
            """WITH gone AS (DELETE FROM dead_letters WHERE dead_letter_id = $1 RETURNING dead_letter_id)
               INSERT INTO audit_log (action, group_id, target_id, details)
               SELECT $2, $3, $4, jsonb_build_object('dead_letter_id', dead_letter_id, 'seq', $5::bigint) FROM gone""",
            letter_id,
            REPLAYED,
            group_id,
            sender_id,
            seq,
        )

    async def drop(self, letter_ids: Sequence[int]) -> list[int]:
        """Remove these for good, and write that down. Returns those that went: not what is gone already or being replayed now."""
        rows = await self._postgres.execute(
            """WITH held AS (SELECT dead_letter_id FROM dead_letters WHERE dead_letter_id = ANY($1::bigint[])
                             FOR UPDATE SKIP LOCKED),
                    gone AS (DELETE FROM dead_letters USING held WHERE dead_letters.dead_letter_id = held.dead_letter_id
                             RETURNING dead_letters.dead_letter_id, reason),
                    noted AS (INSERT INTO audit_log (action, details)
                              SELECT $2, jsonb_build_object('dead_letter_id', dead_letter_id, 'reason', reason) FROM gone)
               SELECT dead_letter_id FROM gone ORDER BY dead_letter_id""",
            letter_ids,
            DROPPED,
        )
        return [row[0] for row in rows]

    async def newest_audit_id(self) -> int:
        """Where the audit log ends; 0 when it is empty."""
        newest: int = await self._postgres.fetchval("SELECT coalesce(max(audit_id), 0) FROM audit_log")
        return newest

    async def claimed_since(self, audit_id: int) -> tuple[int, dict[int, Head]]:
        """Where the audit log ends now, and claims made since it ended at `audit_id` or a little before.

        Number in the audit log → the head of the group now, whether or not the claim has stored a message.
        """
        rows = await self._postgres.fetch(
            """SELECT a.audit_id, a.group_id, s.last_seq, s.access_version
               FROM audit_log AS a LEFT JOIN group_seq AS s ON s.group_id = a.group_id AND a.action = $2
               WHERE a.audit_id > $1 AND (a.action = $2 OR a.audit_id = (SELECT max(audit_id) FROM audit_log))
               ORDER BY a.audit_id""",
            audit_id - AUDIT_LOOK_BACK,
            CLAIMED,
        )
        heads = {
            row[0]: Head(group_id=row[1], last_seq=row[2], access_version=row[3]) for row in rows if row[2] is not None
        }
        return max((row[0] for row in rows), default=audit_id), heads
