"""The indexer dies in the middle of its work, again and again: in the end every message is in one block."""

import asyncio
import logging

import asyncpg
import pytest

from tests.faults.conftest import Trial
from tests.faults.load import loading
from tests.faults.process import ServerProcess

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

log = logging.getLogger("faults")

BATCHES_MAX = 8
CAUGHT_UP_S = 30.0


async def test_an_indexer_killed_before_it_commits_leaves_nothing_out(server: ServerProcess, trial: Trial) -> None:
    chance = trial.chance
    small = {"IM_SEARCH__INDEX_INTERVAL_S": "0.05", "IM_SEARCH__INDEX_BATCH_MAX": "20"}
    points = [f"before_index_commit:{chance.randint(1, BATCHES_MAX)}" for _ in range(trial.count(full=20, short=2))]
    await server.start(**small, IM_TESTING__CRASH_POINT=points[0])
    async with loading(server, trial.history, seed=trial.seed) as load:
        for number, point in enumerate(points, 1):
            await server.gone()
            log.info("crash %d/%d at %s, %d acked so far", number, len(points), point, load.tally.acked)
            await server.launch(**small, IM_TESTING__CRASH_POINT=(*points, "")[number])
        await server.until_ready(CAUGHT_UP_S)
        await load.until_acked(30, within_s=20)
    connection = await asyncpg.connect(server.dsn)
    try:
        async with asyncio.timeout(CAUGHT_UP_S):
            while await connection.fetchval(
                """SELECT count(*) FROM group_seq AS s LEFT JOIN search_progress AS p USING (group_id)
                   WHERE s.last_seq <> coalesce(p.indexed_seq, 0)"""
            ):
                await asyncio.sleep(0.05)
        missing, doubled = await connection.fetchrow(
            """SELECT count(*) FILTER (WHERE b.group_id IS NULL), count(*) - count(DISTINCT m.message_id)
               FROM messages AS m LEFT JOIN search_block AS b
                   ON b.group_id = m.group_id AND m.seq BETWEEN b.first_seq AND b.last_seq
                       AND m.message_id BETWEEN b.first_id AND b.last_id"""
        ) or (None, None)
    finally:
        await connection.close()
    assert (missing, doubled) == (0, 0)
