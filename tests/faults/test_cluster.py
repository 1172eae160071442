"""Roles in processes of their own on a durable broker: whatever is killed, emptied, frozen or started again, the contract holds.

The short form does a little of everything in one load for each broker. The full form, `make faults BROKER=…`, is a test for each row.
"""

import asyncio
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import pytest_asyncio

from app.errors import ConfigError
from local.cluster import Broker, Cluster, Shape, cluster
from tests.faults.conftest import FULL, Trial
from tests.faults.harms import HARMS, Ground, Harm
from tests.faults.load import Load, loading
from tests.faults.process import LIMITS
from tests.faults.results import BROKERS, FOLDER, Result, current_commit, kept
from tests.services import OPTIONS, server_folder

ENVIRONMENT = {
    "IM_ENV": "test",
    # A frozen store looks like a slow one until a command times out.
    "IM_POSTGRES__COMMAND_TIMEOUT_S": "1.5",
    "IM_REDIS__COMMAND_TIMEOUT_S": "1",
    **({} if FULL else {"IM_GATEWAY__DRAIN_S": "5"}),
    **LIMITS,
}
GROUP_DELIVERY = {"redis_streams": "routed", "kafka": "broadcast"}
"""Each with one of the brokers: delivery knows nothing of them."""
ROW_S = 1800
log = logging.getLogger("faults")

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(ROW_S)]


def wanted() -> list[Broker]:
    """The brokers of this run; `BROKER` picks one."""
    named = os.environ.get("BROKER", "")
    brokers: tuple[Broker, ...] = ("redis_streams", "kafka")
    return [broker for broker in brokers if named in ("", broker)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=wanted())
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """A running cluster for all tests on one broker."""
    shape = Shape(request.param, gateways=2, consumers=3 if FULL else 2)
    with server_folder() as folder:
        environment = ENVIRONMENT | {"IM_DELIVERY__GROUP": GROUP_DELIVERY[request.param]}
        try:
            async with cluster(folder, shape, OPTIONS, environment=environment, durable=False) as made:
                await made.start()
                yield made
        except ConfigError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"{BROKERS[request.param]} cannot be tried here: {error}")


async def done(
    harm: Harm, cluster: Cluster, load: Load, trial: Trial, *, row: str, times: int
) -> tuple[list[float], float]:
    """Do it so often; the seconds until recovery of each, and by how many MB a gateway grew in an outage."""
    broker = "kafka" if cluster.kafka else "redis_streams"
    ground = Ground(cluster, load, trial.chance, broker, harm.away_s[0 if FULL else 1])
    took = []
    for number in range(times):
        took.append(await harm.once(ground))
        log.info("%s: %s %d/%d: %.1f s %s", broker, row, number + 1, times, took[-1], harm.measure)
        assert took[-1] <= harm.limit_s, f"{row}: {took[-1]:.1f} s, at most {harm.limit_s:g} s; {load.summary()}"
    return took, ground.grown_mb


def rows(broker: str) -> Iterable[tuple[str, Harm]]:
    """What is tried on a broker."""
    return ((row, harm) for row, harm in HARMS.items() if harm.only in ("", broker))


@pytest.mark.short_form
@pytest.mark.asyncio(loop_scope="module")
async def test_a_cluster_keeps_the_contract_through_a_little_of_everything(ground: Cluster, trial: Trial) -> None:
    broker = "kafka" if ground.kafka else "redis_streams"
    async with loading(ground, trial.history, seed=trial.seed) as load:
        for row, harm in rows(broker):
            if harm.short_only not in ("", broker):
                continue
            await done(harm, ground, load, trial, row=row, times=harm.short)


@pytest.mark.full_form
@pytest.mark.parametrize("row", list(HARMS))
@pytest.mark.asyncio(loop_scope="module")
async def test_a_cluster_keeps_the_contract(ground: Cluster, trial: Trial, row: str) -> None:
    broker = "kafka" if ground.kafka else "redis_streams"
    harm = HARMS[row]
    if harm.only not in ("", broker):
        pytest.skip(f"is about {harm.only}")
    if any(result.row == row for result in kept(broker)) and not os.environ.get("FAULTS_AGAIN"):
        pytest.skip(f"passed before, see {FOLDER}; FAULTS_AGAIN=1 does it again")
    for node in ground.nodes.values():
        # A row that failed may have left one dead.
        if not node.running:
            await node.start()
    since = time.monotonic()
    try:
        async with loading(ground, trial.history, seed=trial.seed) as load:
            took, grown_mb = await done(harm, ground, load, trial, row=row, times=harm.full)
    except BaseException:
        await asyncio.to_thread(_keep_failure, trial.history, broker, row, trial.seed)
        raise
    tally = load.tally
    events = await asyncio.to_thread(_lines, trial.history)
    lasted_s = time.monotonic() - since
    commit = await asyncio.to_thread(current_commit)
    errors = dict(tally.errors)
    result = Result(
        row, broker, trial.seed, commit, took, tally.acked, tally.resent, events, lasted_s, grown_mb, errors
    )
    await asyncio.to_thread(result.keep)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _keep_failure(history: Path, broker: str, row: str, seed: int) -> None:
    if history.exists():
        (FOLDER / "failed").mkdir(parents=True, exist_ok=True)
        shutil.copy(history, FOLDER / "failed" / f"{broker}-{row.replace(' ', '-')}-{seed}.jsonl")
