"""Nothing is there when the processes of a cluster start; then everything appears, in any order."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import pytest

from app.storage.embedded import EmbeddedServers, embedded_servers
from local.cluster import Broker, Cluster, Ports, Shape, add_nodes
from local.kafka import KafkaServer
from local.node import Node
from local.ports import free_range
from tests.faults.conftest import Trial
from tests.faults.process import LIMITS
from tests.running import PASSWORD
from tests.services import OPTIONS, need_kafka, server_folder

log = logging.getLogger("faults")

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

SAID_S = 60.0
"""Python starts five times at once on a machine that may be busy."""


async def until_it_waits(node: Node, port: int) -> str:
    """Wait until a node says on its private port what it waits for."""
    async with asyncio.timeout(SAID_S), aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    reason = str((await answer.json())["reasons"])
                    if answer.status == 503 and "Waiting for" in reason:
                        return reason
            except aiohttp.ClientError:
                pass
            assert node.running, node.tail()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("broker", ["redis_streams", pytest.param("kafka", marks=pytest.mark.xdist_group("kafka"))])
async def test_a_cluster_waits_for_what_it_needs_and_says_so(trial: Trial, broker: Broker) -> None:
    chance = trial.chance
    if broker == "kafka":
        await need_kafka()
    with server_folder() as folder:
        async with AsyncExitStack() as stack:
            # Once, so that they have addresses; then they are gone.
            async with (
                embedded_servers(folder / "one", OPTIONS, want_redis=False, durable=False) as postgres,
                embedded_servers(folder / "two", OPTIONS, want_postgres=False, durable=False) as valkey,
            ):
                stores = EmbeddedServers(postgres.dsn, valkey.redis_url)
            kafka = KafkaServer(folder / "kafka") if broker == "kafka" else None
            made = Cluster(folder, stores, kafka, "s" * 32)
            shape = Shape(broker, consumers=1)
            first_metrics = free_range(shape.apis + shape.gateways + shape.consumers)
            add_nodes(made, shape, Ports(metrics=first_metrics), {"IM_ENV": "test", **LIMITS}, None)
            stack.push_async_callback(made.stop)
            nodes = list(made.nodes.values())
            for node in chance.sample(nodes, len(nodes)):
                await node.launch()
            for number, node in enumerate(nodes):
                log.info("%s: %s", node.name, await until_it_waits(node, first_metrics + number))

            async def start(what: str) -> None:
                if what == "kafka" and kafka is not None:
                    stack.push_async_callback(kafka.stop)
                    await kafka.start()
                elif what in ("one", "two"):
                    store = embedded_servers(
                        folder / what, OPTIONS, want_postgres=what == "one", want_redis=what == "two", durable=False
                    )
                    await stack.enter_async_context(store)

            await appear(start, chance)
            for node in nodes:
                log.info("%s ready after %.1f s", node.name, await node.until_ready())
            await chat(made.url)


async def appear(start: Callable[[str], Awaitable[None]], chance: random.Random) -> None:
    """Start everything, in any order."""
    order = chance.sample(["one", "two", "kafka"], 3)
    log.info("appear in the order %s", order)
    for what in order:
        await start(what)


async def chat(url: str) -> None:
    """A person registers, makes a group and gets an ack."""
    async with aiohttp.ClientSession() as http:
        body = {"username": "first", "password": PASSWORD}
        async with http.post(f"{url}/api/v1/auth/register", json=body) as answer:
            headers = {"Authorization": f"Bearer {(await answer.json())['token']}"}
        async with http.post(
            f"{url}/api/v1/groups", json={"name": "g", "visibility": "open"}, headers=headers
        ) as answer:
            group = (await answer.json())["id"]
        message = {"client_msg_id": "6a1a2a3a-0000-4000-8000-000000000001", "kind": "text", "body": "hello"}
        async with http.post(f"{url}/api/v1/groups/{group}/messages", json=message, headers=headers) as answer:
            assert (answer.status, (await answer.json())["seq"]) == (201, 1)
