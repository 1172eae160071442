"""What tests about searching share."""

import asyncio

from app.storage.postgres import Postgres

WAIT_S = 20.0


async def not_indexed(postgres: Postgres) -> int:
    """Messages that the index does not have yet."""
    missing: int = await postgres.fetchval(
        "SELECT coalesce(sum(s.last_seq - coalesce(p.indexed_seq, 0)), 0)"
        " FROM group_seq AS s LEFT JOIN search_progress AS p USING (group_id)"
    )
    return missing


async def indexed(postgres: Postgres) -> None:
    """Wait until the index has everything."""
    async with asyncio.timeout(WAIT_S):
        while await not_indexed(postgres):
            await asyncio.sleep(0.01)
