"""The log is kept in Redis, and Redis is emptied, killed and frozen, as is the server: what was acked stays, nothing happens twice."""

import asyncio
import logging

import pytest

from tests.faults.conftest import Trial
from tests.faults.load import loading
from tests.faults.process import ServerProcess

# The short form of test_cluster.py does as much on this broker.
pytestmark = [pytest.mark.full_form, pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(900)]

log = logging.getLogger("faults")

STREAMS = {"IM_BROKER__KIND": "redis_streams", "IM_DELIVERY__KIND": "redis_pubsub"}
BACK_S = 20.0


async def test_an_emptied_log_loses_nothing_that_was_acked(server: ServerProcess, trial: Trial) -> None:
    times = trial.count(full=10, short=2)
    await server.start(**STREAMS)
    async with loading(server, trial.history, seed=trial.seed) as load, server.valkey() as valkey:
        for number in range(times):
            await load.until_acked(trial.chance.randint(30, 100), within_s=BACK_S)
            await valkey.flushall()
            await load.until_acked(100, within_s=BACK_S)
            log.info("emptied %d/%d", number + 1, times)


async def test_a_log_that_restarts_empty_loses_nothing_that_was_acked(server: ServerProcess, trial: Trial) -> None:
    times = trial.count(full=10, short=2)
    await server.start(**STREAMS)
    async with loading(server, trial.history, seed=trial.seed) as load:
        for number in range(times):
            await load.until_acked(trial.chance.randint(30, 100), within_s=BACK_S)
            for process in server.store_processes("valkey-server"):
                process.kill()
            await load.until_acked(100, within_s=BACK_S)
            log.info("restarted %d/%d", number + 1, times)


async def test_a_killed_server_leaves_its_log_to_the_next(server: ServerProcess, trial: Trial) -> None:
    kills = trial.count(full=10, short=2)
    await server.start(**STREAMS)
    async with loading(server, trial.history, seed=trial.seed) as load:
        for number in range(kills):
            await load.until_acked(30, within_s=BACK_S)
            await asyncio.sleep(trial.chance.uniform(0.0, 1.0))  # the moment is the point, nothing is waited for
            await server.kill(group=False)
            took_s = await server.start(**STREAMS)
            log.info("kill %d/%d: ready in %.1f s", number + 1, kills, took_s)
        await load.until_acked(30, within_s=BACK_S)
