"""Single rows: is each of them possible."""

from collections.abc import Sequence

from app.doctor.base import Check, Finding, Looked, Source
from app.ids import EPOCH_MS, SEQUENCE_BITS, WORKER_BITS

HASH_BYTES = 32
CLOCK_MS = 60_000
"""Clocks of servers may differ by this much."""
DOUBLES_MAX = 100


class MessageFields(Check):
    """What every stored message obeys."""

    name = "messages"
    title = "messages have a plausible id and time, a hash and a known kind"
    unit = "messages"
    advice = "Somebody wrote to the table beside the server, or a disk failed. Compare the rows with a backup."

    async def look(self, groups: Sequence[int]) -> Looked:
        """One scan of the groups."""
        rows = await self._source.rows(
            """SELECT group_id, count(*), count(why), min(seq) FILTER (WHERE why IS NOT NULL), min(why)
               FROM (SELECT group_id, seq, CASE
                        WHEN octet_length(content_hash) <> $2 THEN 'content_hash of another length'
                        WHEN message_id <= 0 THEN 'a message_id below 1'
                        WHEN ts <> (message_id >> $4) + $3 THEN 'ts is not that of its message_id'
                        WHEN ts > extract(epoch FROM now()) * 1000 + $5 THEN 'from the future'
                        WHEN kind <> 'text' THEN 'an unknown kind'
                        WHEN body = '' THEN 'no body'
                        WHEN seq < 1 THEN 'a number below 1' END AS why
                     FROM messages WHERE group_id = ANY($1::bigint[])) AS m
               GROUP BY group_id""",
            groups,
            HASH_BYTES,
            EPOCH_MS,
            WORKER_BITS + SEQUENCE_BITS,
            CLOCK_MS,
        )
        return Looked(
            sum(row[1] for row in rows),
            [
                Finding(row[0], f"group {row[0]}: {row[2]}, the first is {row[3]} ({row[4]})", row[2])
                for row in rows
                if row[2]
            ],
        )


class Senders(Check):
    """Who wrote is somebody."""

    name = "senders"
    title = "senders of messages are known users"
    unit = "senders"
    advice = "Clients show such messages without a name. Restore the row of `users` from a backup."

    async def look(self, groups: Sequence[int]) -> Looked:
        """From the index of senders alone."""
        rows = await self._source.rows(
            """SELECT m.group_id, count(*), count(*) FILTER (WHERE u.user_id IS NULL), min(sender_id) FILTER (WHERE u.user_id IS NULL)
               FROM (SELECT DISTINCT group_id, sender_id FROM messages WHERE group_id = ANY($1::bigint[])) AS m
               LEFT JOIN users AS u ON u.user_id = m.sender_id GROUP BY m.group_id""",
            groups,
        )
        return Looked(
            sum(row[1] for row in rows),
            [Finding(row[0], f"group {row[0]}: no user {row[3]}", row[2]) for row in rows if row[2]],
        )


class UniqueIds(Check):
    """A message id is the cursor of searches, over all groups; no index proves it unique."""

    name = "unique_ids"
    title = "no message_id is used twice"
    unit = "messages"
    advice = (
        "Two processes stamped with one worker id: look for clocks that jumped, and for a `worker_leases` table that was restored or "
        "emptied while servers ran. Both messages are there; searches may leave one out."
    )
    by_group = False

    async def look(self, groups: Sequence[int]) -> Looked:
        """PostgreSQL sorts on disk what does not fit into its work_mem."""
        rows = await self._source.rows(
            """SELECT message_id, count(*), min(group_id), max(group_id) FROM messages
               GROUP BY message_id HAVING count(*) > 1 ORDER BY message_id LIMIT $1""",
            DOUBLES_MAX,
        )
        total = await self._source.rows("SELECT count(*) FROM messages")
        what = "message_id {0}: {1} times, in groups {2} and {3}"
        return Looked(total[0][0], [Finding(row[0], what.format(*row), row[1] - 1) for row in rows])


class Workers(Check):
    """Nobody stamps beyond a lease."""

    name = "workers"
    title = "no message was stamped beyond the lease of its worker id"
    unit = "worker ids"
    advice = "As for ids that are used twice: the successor of the lease may stamp the same ids."
    by_group = False

    async def look(self, groups: Sequence[int]) -> Looked:
        """The lease's end never moves back behind what was stamped, so one snapshot is enough."""
        rows = await self._source.rows(
            """SELECT m.worker, m.newest, (extract(epoch FROM l.not_after) * 1000)::bigint
               FROM (SELECT (message_id >> $1) & $2 AS worker, max(message_id >> $3) + $4 AS newest
                     FROM messages GROUP BY 1) AS m
               LEFT JOIN worker_leases AS l ON l.worker_id = m.worker""",
            SEQUENCE_BITS,
            (1 << WORKER_BITS) - 1,
            WORKER_BITS + SEQUENCE_BITS,
            EPOCH_MS,
        )
        what = "worker {0}: newest message at {1} ms, leased until {2}"
        return Looked(
            len(rows), [Finding(row[0], what.format(*row)) for row in rows if row[2] is None or row[1] > row[2]]
        )


class Sessions(Check):
    """Sessions end after they begin."""

    name = "sessions"
    title = "sessions begin before they end, and not in the future"
    unit = "sessions"
    advice = "A clock was wrong, or rows were written by hand. Revoke them: `UPDATE sessions SET revoked_at = now() WHERE sid = …`."
    by_group = False

    async def look(self, groups: Sequence[int]) -> Looked:
        """One scan."""
        rows = await self._source.rows(
            """SELECT user_id, count(*), min(sid::text) FROM sessions
               WHERE expires_at <= created_at OR greatest(created_at, revoked_at) > now() + interval '1 minute'
               GROUP BY user_id ORDER BY user_id LIMIT $1""",
            DOUBLES_MAX,
        )
        total = await self._source.rows("SELECT count(*) FROM sessions")
        return Looked(total[0][0], [Finding(row[0], f"user {row[0]}: {row[1]}, the first is {row[2]}") for row in rows])


class Partitions(Check):
    """The broker and its partition count belong to the data."""

    name = "partitions"
    title = "the broker has as many partitions as were used with this database"
    unit = "partitions"
    advice = (
        "With another count a group changes its partition and loses its order: set broker.partitions back, see config/default.toml. "
        "Where the settings name another broker than the consumers use, set IM_BROKER__KIND as they do and look again."
    )
    by_group = False

    def __init__(self, source: Source, broker: str, partitions: int, *, durable: bool) -> None:
        super().__init__(source)
        self._broker = broker
        self._partitions = partitions
        self._durable = durable

    async def look(self, groups: Sequence[int]) -> Looked:
        """Settings, the count that was written at the first start, and the fence.

        A log in memory is the default, so it may be in the settings by mistake: then what waits in the real one is not looked at. It is one
        where a consumer on another broker took a partition after the last one on this. Rows that an earlier broker left are older.
        """
        rows = await self._source.rows(
            """SELECT (SELECT partitions FROM broker_partitions WHERE broker = $1),
                      (SELECT coalesce(max(partition) + 1, 0) FROM partition_owner WHERE broker = $1),
                      (SELECT broker FROM partition_owner ORDER BY taken_at DESC, broker = $1 DESC LIMIT 1)""",
            self._broker,
        )
        stored, owned, newest = rows[0]
        findings = []
        if stored is not None and stored != self._partitions:
            findings.append(Finding(stored, f"{self._broker}: {self._partitions} in the settings, {stored} in use"))
        if stored is not None and owned > stored:
            findings.append(Finding(owned, f"{self._broker}: partition {owned - 1} was owned, of {stored}"))
        if not self._durable and newest not in (None, self._broker):
            findings.append(Finding(0, f"{self._broker} in the settings, consumers use {newest}"))
        return Looked(self._partitions, findings)
