"""Valkey is emptied or away, PostgreSQL is away: nobody loses a message or a session, and work goes on afterwards."""

import asyncio
import logging

import pytest

from tests.faults.conftest import FULL, Trial
from tests.faults.load import loading
from tests.faults.process import ServerProcess, freeze, thaw

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(900)]

log = logging.getLogger("faults")

QUICK_TO_NOTICE = {"IM_POSTGRES__COMMAND_TIMEOUT_S": "1.5", "IM_REDIS__COMMAND_TIMEOUT_S": "1"}
"""A frozen store looks like a slow one until a command times out."""
STORES = [("postgres", "memory"), ("valkey-server", "redis_pubsub")]
if FULL:
    STORES += [("postgres", "redis_pubsub"), ("valkey-server", "memory")]
AWAY_S = (3, 10, 30) if FULL else (1,)
"""After it was noticed."""
NOTICED_S = 10.0
BACK_S = 20.0


@pytest.mark.parametrize("delivery", ["redis_pubsub", "memory"][: 2 if FULL else 1])
async def test_valkey_emptied_under_load_harms_nothing(server: ServerProcess, trial: Trial, delivery: str) -> None:
    times = trial.count(full=5, short=1)
    await server.start(IM_DELIVERY__KIND=delivery)
    async with loading(server, trial.history, seed=trial.seed) as load, server.valkey() as valkey:
        for number in range(times):
            await load.until_acked(100, within_s=20)
            connects = load.tally.connects
            await valkey.flushall()
            await load.until_acked(100, within_s=20)
            log.info("emptied %d/%d: %d reconnects", number + 1, times, load.tally.connects - connects)


@pytest.mark.parametrize(("program", "delivery"), STORES)
async def test_a_frozen_store_is_waited_for(server: ServerProcess, trial: Trial, program: str, delivery: str) -> None:
    await server.start(IM_DELIVERY__KIND=delivery, **QUICK_TO_NOTICE)
    async with loading(server, trial.history, seed=trial.seed) as load:
        for number, away_s in enumerate(AWAY_S, 1):
            await load.until_acked(100, within_s=20)
            store = server.store_processes(program)
            freeze(store)
            try:
                noticed_s = await server.until_not_ready(NOTICED_S)
                await asyncio.sleep(away_s)  # how long it is away is the point, nothing is waited for
                assert (await server.ready())[0] == 503
            finally:
                thaw(store)
            back_s = await server.until_ready(BACK_S)
            await load.until_acked(100, within_s=BACK_S)
            log.info(
                "frozen %d/%d: noticed in %.1f s, away %d s more, ready %.1f s after its return",
                *(number, len(AWAY_S), noticed_s, away_s, back_s),
            )


@pytest.mark.parametrize("program", ["postgres", "valkey-server"][: 2 if FULL else 1])
async def test_a_killed_store_is_started_again(server: ServerProcess, trial: Trial, program: str) -> None:
    """The server starts its embedded stores again; Valkey comes back empty, PostgreSQL after crash recovery."""
    times = trial.count(full=5, short=1)
    await server.start(IM_DELIVERY__KIND="redis_pubsub")
    async with loading(server, trial.history, seed=trial.seed) as load:
        for number in range(times):
            await load.until_acked(100, within_s=BACK_S)
            server.store_processes(program)[0].kill()
            # What was on its way to the store may be answered before the loss is noticed.
            await load.until_acked(200, within_s=BACK_S)
            log.info("killed %d/%d: ready in %.1f s", number + 1, times, await server.until_ready(BACK_S))
