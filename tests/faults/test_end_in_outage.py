"""Processes are told to end while their broker is away: they end in time, and what they had taken in is sent again."""

import asyncio
import signal
from collections.abc import Callable
from uuid import uuid4

import aiohttp
import pytest

from app.protocol.frames import SUBPROTOCOL
from local.cluster import Broker, Cluster, Shape, cluster
from local.node import Node
from tests.faults.harms import store
from tests.faults.process import LIMITS
from tests.running import PASSWORD, Socket
from tests.services import OPTIONS, need_kafka, server_folder

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

ENVIRONMENT = {"IM_ENV": "test", **LIMITS}
GRACE_S = 30.0
"""What Kubernetes gives by default."""
TOLD_S = 60.0


def freeze(made: Cluster) -> Callable[[], None]:
    """The broker answers nothing until the answer is called."""
    if made.kafka is not None:
        made.kafka.freeze()
        return made.kafka.thaw
    valkey = store(made, "valkey-server")
    valkey.suspend()
    return valkey.resume


async def end(node: Node) -> int:
    """Its exit code."""
    node.signal(signal.SIGTERM)
    return await node.ended(GRACE_S)


@pytest.mark.parametrize(
    "broker",
    [
        pytest.param("redis_streams", marks=pytest.mark.full_form),
        pytest.param("kafka", marks=pytest.mark.xdist_group("kafka")),
    ],
)
async def test_who_is_told_to_end_while_the_broker_is_away_ends_in_time(broker: Broker) -> None:
    if broker == "kafka":
        await need_kafka()
    shape = Shape(broker, gateways=1, consumers=1)
    with server_folder() as folder:
        async with (
            cluster(folder, shape, OPTIONS, environment=ENVIRONMENT, durable=False) as made,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
        ):
            await made.start()
            api, gateway, consumer = made.nodes["api1"], made.nodes["gateway1"], made.nodes["consumer1"]
            async with http.post(
                f"{api.url}/api/v1/auth/register", json={"username": "ann", "password": PASSWORD}
            ) as answer:
                headers = {"Authorization": f"Bearer {(await answer.json())['token']}"}
            async with http.post(
                f"{api.url}/api/v1/groups", json={"name": "one", "visibility": "open"}, headers=headers
            ) as answer:
                group = (await answer.json())["id"]

            async def send(socket: Socket, body: str, client_msg_id: str) -> None:
                await socket.ws.send_json(
                    {
                        "id": 7, "type": "message.send", "group_id": group, "kind": "text",
                        "client_msg_id": client_msg_id, "body": body,
                    }
                )  # fmt: skip

            async def connect() -> Socket:
                return Socket(await http.ws_connect(f"{gateway.url}/ws", headers=headers, protocols=(SUBPROTOCOL,)))

            socket = await connect()
            await send(socket, "before", str(uuid4()))
            async with asyncio.timeout(TOLD_S):
                assert (await socket.until(lambda frame: frame.get("id") == 7))["type"] == "ok"
            thaw = freeze(made)
            try:
                asked = str(uuid4())
                await send(socket, "meanwhile", asked)
                await consumer.until_not_ready(TOLD_S)
                assert not any(await asyncio.gather(end(gateway), end(consumer)))
            finally:
                thaw()
            await asyncio.gather(gateway.start(), consumer.start())
            socket = await connect()
            await send(socket, "meanwhile", asked)
            async with asyncio.timeout(TOLD_S):
                again = await socket.until(lambda frame: frame.get("id") == 7)
            assert (again["type"], again["seq"]) == ("ok", 2)
            async with http.get(f"{api.url}/api/v1/groups/{group}/messages", headers=headers) as answer:
                assert sorted(each["body"] for each in (await answer.json())["items"]) == ["before", "meanwhile"]
