"""A gateway is killed with somebody connected to it: others learn that he is offline, and since when."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from app.protocol.frames import SUBPROTOCOL
from local.cluster import Shape, cluster
from tests.faults.process import LIMITS
from tests.running import PASSWORD, Socket
from tests.services import OPTIONS, server_folder

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

ENVIRONMENT = {
    "IM_ENV": "test",
    # What a killed gateway left of its users ends after this time.
    "IM_GATEWAY__ROUTE_TTL_S": "6",
    "IM_GATEWAY__ROUTE_RENEW_S": "1",
    "IM_PRESENCE__GRACE_S": "1",
    **LIMITS,
}
MINUTE_MS = 60_000
TOLD_S = 60.0


async def asked(http: aiohttp.ClientSession, method: str, url: str, token: str = "", **body: Any) -> Any:
    """What it answers; it must succeed."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with http.request(method, url, json=body if method == "POST" else None, headers=headers) as answer:
        assert answer.status < 300, await answer.text()
        return await answer.json()


async def test_who_was_on_a_killed_gateway_is_told_and_read_as_offline() -> None:
    shape = Shape("redis_streams", gateways=2, consumers=1, registry="redis")
    with server_folder() as folder:
        async with (
            cluster(folder, shape, OPTIONS, environment=ENVIRONMENT, durable=False) as made,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
        ):
            await made.start()
            api = f"{made.url}/api/v1"
            names = ("ann", "ben")
            ann, ben = [
                await asked(http, "POST", f"{api}/auth/register", username=name, password=PASSWORD) for name in names
            ]
            group = (await asked(http, "POST", f"{api}/groups", ann["token"], name="two", visibility="open"))["id"]
            await asked(http, "POST", f"{api}/groups/{group}/join", ben["token"])

            async def snapshot() -> dict[str, tuple[str, int | None]]:
                answer = await asked(http, "GET", f"{api}/groups/{group}/presence", ann["token"])
                return {one["user_id"]: (one["state"], one["last_seen"]) for one in answer["members"]}

            def socket(user: Any, node: str) -> Any:
                headers = {"Authorization": f"Bearer {user['token']}"}
                return http.ws_connect(f"{made.nodes[node].url}/ws", headers=headers, protocols=(SUBPROTOCOL,))

            ben_id = ben["user"]["id"]
            async with socket(ann, "gateway1") as ws, asyncio.timeout(TOLD_S):
                watching = Socket(ws, presence=True)
                async with socket(ben, "gateway2") as lost:
                    await watching.event("presence", user_id=ben_id, state="online")
                    assert (await snapshot())[ben_id] == ("online", None)
                    before = time.time_ns() // 1_000_000
                    await made.nodes["gateway2"].kill()
                    while (await lost.receive()).type is aiohttp.WSMsgType.TEXT:
                        pass
                while (found := (await snapshot())[ben_id])[0] != "offline":
                    await asyncio.sleep(0.1)
                went = await watching.event("presence", user_id=ben_id, state="offline")
                assert went["last_seen"] == found[1]
                # To the minute, and no later than he was told of.
                assert before - 2 * MINUTE_MS < went["last_seen"] <= went["ts"]
                assert (await snapshot())[ann["user"]["id"]] == ("online", None)
