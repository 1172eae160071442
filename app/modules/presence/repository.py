"""SQL of presence: when users were last online."""

from collections.abc import Mapping, Sequence

from app.storage.postgres import Postgres


class LastSeenRepository:
    """The table `last_seen`; moments are ms since 1970."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def move(self, moments: Mapping[int, int]) -> None:
        """Never back, and without a write where nothing moves. Raises Busy."""
        # In rising id, so that no two writers wait for each other.
        await self._postgres.execute(
            """INSERT INTO last_seen AS l (user_id, seen_at)
               SELECT u, timestamptz 'epoch' + ms * interval '1 millisecond' FROM unnest($1::bigint[], $2::bigint[]) AS v (u, ms) ORDER BY u
               ON CONFLICT (user_id) DO UPDATE SET seen_at = excluded.seen_at WHERE l.seen_at < excluded.seen_at""",
            list(moments),
            list(moments.values()),
        )

    async def of(self, user_ids: Sequence[int]) -> dict[int, int]:
        """Those of the users who ever were online. Raises Busy."""
        rows = await self._postgres.fetch(
            """SELECT user_id, (extract(epoch FROM seen_at) * 1000)::bigint FROM last_seen
               WHERE user_id = ANY($1::bigint[])""",
            user_ids,
        )
        return {row[0]: row[1] for row in rows}
