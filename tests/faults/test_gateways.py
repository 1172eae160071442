"""Gateways in a registry, behind Nginx over TLS: whichever dies, comes, flaps or is cut off, everybody is served and misses nothing."""

import os
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from local.cluster import Cluster, Registry, Shape, cluster
from local.node import Node
from tests.cable import Cable, cable_to
from tests.faults.conftest import Trial
from tests.faults.gateway_harms import CUT, CUT_ROW, GATEWAY_HARMS, RUSH_ROW, RUSHES, SPARE
from tests.faults.load import Size, loading
from tests.faults.process import LIMITS
from tests.faults.rows import ROW_S, do_row, skip_what_passed
from tests.proxied import need_nginx, nginx_of, trusting
from tests.services import OPTIONS, server_folder

ENVIRONMENT = {
    "IM_ENV": "test",
    # People move while somebody watches, not minutes later.
    "IM_CLUSTER__MOVE_SETTLE_S": "1",
    "IM_CLUSTER__MOVE_OVER_S": "10",
    **LIMITS,
}
CROWD, RUSH = "4000,10,1,50", "8000,10,1,50"
NARROW = {"IM_GATEWAY__ADMISSION_PER_SECOND": "40", "IM_GATEWAY__ADMISSION_BURST": "80"}
"""Of each gateway: a little less than what two processors for everything get on with, as 500 is for a gateway with its own."""

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.full_form,
    pytest.mark.timeout(ROW_S),
    # aiohttp leaves the socket of a request that timed out while it connected to the collector; here thousands ask at once.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]


def wanted() -> list[Registry]:
    """The registries of this run; `REGISTRY` picks one."""
    named = os.environ.get("REGISTRY", "")
    registries: tuple[Registry, ...] = ("redis", "etcd")
    return [registry for registry in registries if named in ("", registry)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=wanted())
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Cluster, Sequence[Cable], Mapping[str, str]]]:
    """A running cluster for all tests on one registry; cables to its stores, and the settings of a gateway that uses them."""
    need_nginx()
    shape = Shape("redis_streams", gateways=5, consumers=1, registry=request.param, nginx=True)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(server_folder())
        made = await stack.enter_async_context(cluster(folder, shape, OPTIONS, environment=ENVIRONMENT, durable=False))
        cables = [await stack.enter_async_context(cable_to(urlsplit(made.stores.redis_url).path))]
        cabled = {**made.nodes[CUT].environment, "IM_REDIS__URL": f"redis://127.0.0.1:{cables[0].port}/0"}
        if made.etcd is not None:
            cables.append(await stack.enter_async_context(cable_to(int(made.etcd.address.rsplit(":", 1)[1]))))
            cabled["IM_ETCD__ENDPOINTS"] = cables[1].url
        await made.start()
        await made.nodes[SPARE].stop()
        yield made, cables, cabled


@pytest.mark.parametrize("row", list(GATEWAY_HARMS))
@pytest.mark.asyncio(loop_scope="module")
async def test_gateways_keep_the_contract(
    ground: tuple[Cluster, Sequence[Cable], Mapping[str, str]], trial: Trial, row: str
) -> None:
    running, cables, cabled = ground
    stage = f"registry_{'etcd' if running.etcd else 'redis'}"
    skip_what_passed(stage, row)
    for node in running.nodes.values():
        if not node.running and node.name != SPARE:
            await node.start()
    size = Size.of_environment(RUSH if row in RUSHES else CROWD)
    trust = trusting(nginx_of(running))
    # Looking at it once for each of thousands of handshakes costs a quarter of them; others do that, see tests/integration.
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    load = loading(running, trial.history, seed=trial.seed, size=size, trust=trust)
    async with AsyncExitStack() as stack:
        if row == CUT_ROW:
            # Only here: this process, which moves what goes over cables, is too busy when thousands come in.
            await stack.enter_async_context(_other_settings(running.nodes[CUT], cabled))
        elif row == RUSH_ROW:
            for node in running.of_role("gateway"):
                if node.running:
                    await stack.enter_async_context(_other_settings(node, {**node.environment, **NARROW}))
        await do_row(stage, row, GATEWAY_HARMS[row], running, trial, load, cables)


@asynccontextmanager
async def _other_settings(node: Node, environment: Mapping[str, str]) -> AsyncIterator[None]:
    """The process runs with these while the block does."""
    usual = node.environment
    await _start_again(node, environment)
    try:
        yield
    finally:
        await _start_again(node, usual)


async def _start_again(node: Node, environment: Mapping[str, str]) -> None:
    await node.stop()
    node.environment = environment
    await node.start()
