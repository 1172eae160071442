"""Answers by gRPC between processes: a registered gateway gets its acks from the consumer without Redis between."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.protocol.frames import SUBPROTOCOL
from local.cluster import Cluster, Shape, cluster
from local.node import Node
from tests.running import PASSWORD
from tests.services import OPTIONS, server_folder

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(180)]

SENDS = 30
LOOK_S = 0.05
SLACK_S = 15.0
"""A busy machine is no defect."""


@pytest.fixture
async def running() -> AsyncIterator[Cluster]:
    shape = Shape("redis_streams", gateways=1, consumers=1, registry="redis")
    # As patient as can be: what is tried is the way, not the machine.
    environment = {"IM_ENV": "test", "IM_GRPC__ANSWERS": "true", "IM_GRPC__DEADLINE_MS": "5000"}
    with server_folder() as folder:
        async with cluster(folder, shape, OPTIONS, environment=environment, durable=False) as made:
            await made.start()
            yield made


class Sender:
    """Somebody with a socket and a group."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, group_id: str) -> None:
        self._ws = ws
        self._group_id = group_id
        self._number = 0

    async def acked(self) -> int:
        """Send a message and wait for its ack; its seq."""
        self._number += 1
        fields = {"group_id": self._group_id, "client_msg_id": str(uuid.uuid4()), "kind": "text", "body": "hello"}
        await self._ws.send_json({"id": self._number, "type": "message.send", **fields})
        async with asyncio.timeout(SLACK_S):
            while (frame := await self._ws.receive_json()).get("id") != self._number:
                pass
        assert frame["type"] == "ok", frame
        return int(frame["seq"])


@asynccontextmanager
async def talking(running: Cluster, name: str) -> AsyncIterator[Sender]:
    """Somebody new, at the only gateway."""
    async with aiohttp.ClientSession() as http:
        api = f"{running.url}/api/v1"
        async with http.post(f"{api}/auth/register", json={"username": name, "password": PASSWORD}) as response:
            answer = await response.json()
        headers = {"Authorization": f"Bearer {answer['token']}"}
        async with http.post(f"{api}/groups", json={"name": "g", "visibility": "open"}, headers=headers) as response:
            group = await response.json()
        url = running.nodes["gateway1"].url.replace("http", "ws", 1) + "/ws"
        async with http.ws_connect(url, headers=headers, protocols=(SUBPROTOCOL,)) as ws:
            yield Sender(ws, group["id"])


async def count(node: Node, name: str, **labels: str) -> float:
    async with aiohttp.ClientSession() as http, http.get(f"{node.url}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
        samples = [sample for family in families for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


async def until_pushed(consumer: Node, sender: Sender) -> int:
    """Send until an answer came by gRPC; the last seq."""
    pushed = await count(consumer, "im_push_items_sum")
    async with asyncio.timeout(SLACK_S):
        while True:
            seq = await sender.acked()
            if await count(consumer, "im_push_items_sum") > pushed:
                return seq


async def test_acks_come_by_grpc_and_by_redis_while_the_gateway_is_new(running: Cluster) -> None:
    consumer, gateway = running.nodes["consumer1"], running.nodes["gateway1"]
    async with talking(running, "ann") as ann:
        seq = await until_pushed(consumer, ann)
        pushed, fallen = await count(consumer, "im_push_items_sum"), await count(consumer, "im_push_fallbacks_total")
        assert fallen >= 1
        assert [await ann.acked() for _ in range(SENDS)] == list(range(seq + 1, seq + 1 + SENDS))
        # The last ack is here before the call that brought it has returned and is counted.
        async with asyncio.timeout(SLACK_S):
            while await count(consumer, "im_push_items_sum") != pushed + SENDS:
                await asyncio.sleep(LOOK_S)
        assert await count(consumer, "im_push_fallbacks_total") == fallen
        assert await count(gateway, "im_pushes_refused_total") == 0
    # Another process under the same name, at another port.
    await gateway.stop()
    await gateway.start()
    async with talking(running, "bob") as bob:
        await until_pushed(consumer, bob)
