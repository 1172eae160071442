"""The table `worker_leases`: who may stamp Snowflake ids with which worker id, and until when. Times are the database's."""

from app.ids import WORKERS, Granted
from app.storage.postgres import Postgres


class WorkerLeaseRepository:
    """Every method is one statement; all raise Busy when the database is away."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def take(self, holder: str, lease_s: float) -> Granted | None:
        """Lease the worker id that has been free for longest, for `lease_s` seconds; None when all are leased.

        `from_ms` is where the last holder ended, as ms since 1970; `until_ms` is the end of the new lease.
        """
        granted = await self._take_free(holder, lease_s)
        if granted is None:
            await self._fill()
            granted = await self._take_free(holder, lease_s)
        return granted

    async def _take_free(self, holder: str, lease_s: float) -> Granted | None:
        row = await self._postgres.fetchrow(
            """
            WITH free AS (
                SELECT worker_id, not_after FROM worker_leases
                WHERE not_after < now() ORDER BY not_after, worker_id
                LIMIT 1 FOR UPDATE SKIP LOCKED
            )
            UPDATE worker_leases AS mine SET holder = $1, not_after = now() + make_interval(secs => $2)
            FROM free WHERE mine.worker_id = free.worker_id
            RETURNING
                mine.worker_id,
                ceil(extract(epoch FROM free.not_after) * 1000)::bigint AS from_ms,
                floor(extract(epoch FROM mine.not_after) * 1000)::bigint AS until_ms
            """,
            holder,
            lease_s,
        )
        return None if row is None else Granted(row["worker_id"], row["from_ms"], row["until_ms"])

    async def _fill(self) -> None:
        """Worker ids never leased before; all rows are there after the first start of the first process."""
        await self._postgres.execute(
            """
            INSERT INTO worker_leases (worker_id, holder, not_after)
            SELECT worker_id, '', 'epoch' FROM generate_series(0, $1::int - 1) AS worker_id
            ON CONFLICT DO NOTHING
            """,
            WORKERS,
        )

    async def renew(self, worker_id: int, holder: str, lease_s: float) -> int | None:
        """Extend the lease; returns its new end in ms since 1970, None when another holds the worker id now.

        The end never moves back, not even with the database's clock: ids up to it may be stamped already.
        """
        until_ms: int | None = await self._postgres.fetchval(
            """
            UPDATE worker_leases SET not_after = greatest(not_after, now() + make_interval(secs => $3))
            WHERE worker_id = $1 AND holder = $2
            RETURNING floor(extract(epoch FROM not_after) * 1000)::bigint
            """,
            worker_id,
            holder,
            lease_s,
        )
        return until_ms

    async def holders(self) -> list[tuple[str, float]]:
        """Who holds a lease now, and for how many seconds it lasts if it is not renewed."""
        rows = await self._postgres.fetch(
            """
            SELECT holder, extract(epoch FROM not_after - now())::float8 FROM worker_leases
            WHERE not_after > now() ORDER BY holder
            """
        )
        return [(row[0], row[1]) for row in rows]

    async def release(self, worker_id: int, holder: str, until_ms: int) -> None:
        """End the lease at `until_ms` (ms since 1970) if that is earlier; the holder has stamped nothing from there on."""
        await self._postgres.execute(
            """
            UPDATE worker_leases SET not_after = least(not_after, to_timestamp($3::bigint / 1000.0))
            WHERE worker_id = $1 AND holder = $2
            """,
            worker_id,
            holder,
            until_ms,
        )
