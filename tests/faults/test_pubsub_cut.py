"""The way down is cut again and again: whoever is online has everything within 15 s all the same."""

import logging

import pytest

from tests.faults.conftest import Trial
from tests.faults.load import loading
from tests.faults.process import ServerProcess

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(900)]

log = logging.getLogger("faults")

PUBSUB = {"IM_DELIVERY__KIND": "redis_pubsub"}
SEEN_S = 15.0


async def test_a_cut_subscription_under_load_hides_nothing(server: ServerProcess, trial: Trial) -> None:
    cuts = trial.count(full=20, short=3)
    await server.start(**PUBSUB)
    async with loading(server, trial.history, seed=trial.seed) as load, server.valkey() as valkey:
        for number in range(cuts):
            await load.until_acked(trial.chance.randint(20, 200), within_s=20)
            killed = await valkey.client_kill_filter(_type="pubsub")
            assert killed, "nobody was subscribed"
            log.info("cut %d/%d of %d subscriptions, %d gaps so far", number + 1, cuts, killed, load.tally.gaps)
        await load.until_acked(100, within_s=20)


async def test_messages_that_are_lost_right_before_a_quiet_time_are_found(server: ServerProcess, trial: Trial) -> None:
    cuts = trial.count(full=10, short=2)
    await server.start(**PUBSUB)
    async with loading(server, trial.history, seed=trial.seed) as load, server.valkey() as valkey:
        for number in range(cuts):
            load.go_on()
            await load.until_acked(100, within_s=20)
            load.pause()
            gaps = load.tally.gaps
            load.burst()
            await valkey.client_kill_filter(_type="pubsub")
            load.burst()
            seen_s = await load.until_seen(SEEN_S)
            assert seen_s < SEEN_S, f"not everybody has everything after {seen_s:.1f} s; {load.summary()}"
            drained_s = await load.drain()
            log.info(
                "cut %d/%d: %d gaps, seen after %.1f s, all answered %.1f s later",
                *(number + 1, cuts, load.tally.gaps - gaps, seen_s, drained_s),
            )
