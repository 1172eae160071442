"""The whole process is killed at any instant and started again on the same folder: nothing acked is lost, nothing happens twice."""

import asyncio
import logging

import pytest

from tests.faults.conftest import PATIENCE, Trial
from tests.faults.load import loading
from tests.faults.process import ServerProcess

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(900)]

log = logging.getLogger("faults")

RESTART_S = 15.0 * PATIENCE
"""From start to ready with crash recovery, on a machine that is busy with tests."""
LABELS = ["after_read", "before_commit", "before_publish", "before_position"]
PASSAGES_MAX = 150
"""Batches until a crash point kills: within two seconds under this load."""


async def test_a_server_killed_at_random_moments_loses_and_repeats_nothing(server: ServerProcess, trial: Trial) -> None:
    chance = trial.chance
    kills = trial.count(full=20, short=2)
    await server.start()
    async with loading(server, trial.history, seed=trial.seed) as load:
        for number in range(kills):
            await load.until_acked(30, within_s=20)
            pause_s, group = chance.uniform(0.0, 1.5), chance.random() < 0.5
            await asyncio.sleep(pause_s)  # the moment is the point, nothing is waited for
            await server.kill(group=group)
            took_s = await server.start()
            log.info("kill %d/%d after %.2f s (group: %s): ready in %.1f s", number + 1, kills, pause_s, group, took_s)
            assert took_s < RESTART_S
        await load.until_acked(30, within_s=20)


async def test_a_server_that_dies_at_any_crash_point_loses_and_repeats_nothing(
    server: ServerProcess, trial: Trial
) -> None:
    chance = trial.chance
    labels = LABELS * trial.count(full=5, short=1)
    chance.shuffle(labels)
    points = [f"{label}:{chance.randint(1, PASSAGES_MAX)}" for label in labels]
    await server.start(IM_TESTING__CRASH_POINT=points[0])
    async with loading(server, trial.history, seed=trial.seed) as load:
        for number, point in enumerate(points, 1):
            await server.gone()
            log.info("crash %d/%d at %s, %d acked so far", number, len(points), point, load.tally.acked)
            # Not `start`: the load may drive it into the next crash before anybody asked whether it is ready.
            await server.launch(IM_TESTING__CRASH_POINT=(*points, "")[number])
        await server.until_ready(RESTART_S)
        await load.until_acked(30, within_s=20)
