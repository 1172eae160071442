"""Roles in processes of their own on a durable broker: whatever is killed, emptied, frozen or started again, the contract holds.

The short form does a little of everything in one load for each broker. The full form, `make faults BROKER=…`, is a test for each row.
"""

import os
from collections.abc import AsyncIterator, Iterable

import pytest
import pytest_asyncio

from local.cluster import Broker, Cluster, Shape, cluster
from tests.faults.conftest import FULL, Trial
from tests.faults.harms import HARMS, Harm
from tests.faults.load import loading
from tests.faults.process import LIMITS
from tests.faults.rows import ROW_S, do, do_row, skip_what_passed
from tests.services import OPTIONS, need_kafka, server_folder

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
    if request.param == "kafka":
        await need_kafka()
    with server_folder() as folder:
        environment = ENVIRONMENT | {"IM_DELIVERY__GROUP": GROUP_DELIVERY[request.param]}
        async with cluster(folder, shape, OPTIONS, environment=environment, durable=False) as made:
            await made.start()
            yield made


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
            await do(harm, ground, load, trial, row=row, times=harm.short)


@pytest.mark.full_form
@pytest.mark.parametrize("row", list(HARMS))
@pytest.mark.asyncio(loop_scope="module")
async def test_a_cluster_keeps_the_contract(ground: Cluster, trial: Trial, row: str) -> None:
    broker = "kafka" if ground.kafka else "redis_streams"
    harm = HARMS[row]
    if harm.only not in ("", broker):
        pytest.skip(f"is about {harm.only}")
    skip_what_passed(broker, row)
    for node in ground.nodes.values():
        # A row that failed may have left one dead.
        if not node.running:
            await node.start()
    await do_row(broker, row, harm, ground, trial, loading(ground, trial.history, seed=trial.seed))
