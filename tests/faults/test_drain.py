"""A gateway is told to end while thousands are connected: they go evenly, it ends within its grace time, and nobody misses anything."""

import asyncio
import logging
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import aiohttp
import pytest

from app.protocol.frames import CLOSE_DRAIN, SUBPROTOCOL
from bench.plan import Member, Shape
from bench.seed import seed as seed_population
from local.cluster import Cluster, cluster
from local.cluster import Shape as ClusterShape
from tests.faults.conftest import PATIENCE, Trial
from tests.faults.load import loading
from tests.faults.process import LIMITS
from tests.services import OPTIONS, server_folder

log = logging.getLogger("faults")

# The short form is a row of the cluster's.
pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.full_form, pytest.mark.timeout(600)]

GRACE_S = 30.0
"""What Kubernetes gives by default."""
CROWD = int(os.environ.get("FAULTS_CROWD") or 4000)
OVER_S = 12.0
"""By default: gateway.drain_s without the time of the last endings."""
TOGETHER = 3
"""At most so many times their even share may go in a second: the machine is busy."""
AT_ONCE = 50
READ_S = 60.0
FORCED = 130


class Sitter:
    """Is connected, follows the drain, and connects where it is sent then."""

    def __init__(self, user: Member, http: aiohttp.ClientSession) -> None:
        self._user = user
        self._http = http
        self._headers = {"Authorization": f"Bearer {user.token}"}
        self.refused = 0
        self.gone_at = 0.0
        self.code: int | None = None
        self.node = ""

    async def connect(self, url: str) -> aiohttp.ClientWebSocketResponse:
        """Until it is let in."""
        while True:
            try:
                ws = await self._http.ws_connect(url, headers=self._headers, protocols=(SUBPROTOCOL,))
            except aiohttp.WSServerHandshakeError as refused:
                if refused.status != HTTPStatus.SERVICE_UNAVAILABLE or refused.headers is None:
                    raise
                self.refused += 1
                await asyncio.sleep(int(refused.headers["Retry-After"]) * random.uniform(1, 1.5))  # noqa: S311 - jitter
            else:
                self.node = (await ws.receive_json(timeout=READ_S))["node"]
                return ws

    async def follow(self, ws: aiohttp.ClientWebSocketResponse, api: str) -> aiohttp.ClientWebSocketResponse:
        """From `drain` to the next hello."""
        told_ms = 0
        while (message := await ws.receive(timeout=READ_S)).type is aiohttp.WSMsgType.TEXT:
            if (event := message.json())["type"] == "drain":
                told_ms = event["retry_after_ms"]
        self.gone_at, self.code = time.monotonic(), message.data
        assert told_ms, "closed without a word"
        await asyncio.sleep(told_ms / 1000 + random.uniform(0, 0.5))  # noqa: S311 - jitter
        async with self._http.get(f"{api}/api/v1/gateway", headers=self._headers) as answer:
            url = (await answer.json())["url"]
        return await self.connect(url)


@pytest.fixture
async def ground() -> AsyncIterator[Cluster]:
    shape = ClusterShape("redis_streams", gateways=2, consumers=1, registry="redis")
    environment = {
        "IM_ENV": "test",
        # All are put on the one that ends.
        "IM_CLUSTER__MOVE_USERS": "false",
        **LIMITS,
    }
    with server_folder() as folder:
        async with cluster(folder, shape, OPTIONS, environment=environment, durable=False) as made:
            await made.start()
            yield made


@asynccontextmanager
async def crowd(ground: Cluster, url: str, seed: int) -> AsyncIterator[list[tuple[Sitter, asyncio.Task[None]]]]:
    """So many, connected at `url`, each with a task that ends when it is connected elsewhere."""
    shape = Shape(users=CROWD, group_size=10, groups_per_user=1, senders=0, rate=1.0, duration_s=1.0)
    people = await seed_population(ground.dsn, ground.secret, shape, seed)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        sitters = [Sitter(person, http) for person in people]
        open_sockets = []
        for start in range(0, len(sitters), AT_ONCE):
            open_sockets += await asyncio.gather(*(one.connect(url) for one in sitters[start : start + AT_ONCE]))

        async def follow(sitter: Sitter, ws: aiohttp.ClientWebSocketResponse) -> None:
            open_sockets.append(await sitter.follow(ws, ground.url))

        pairs = list(zip(sitters, open_sockets, strict=True))
        tasks = [asyncio.create_task(follow(sitter, ws)) for sitter, ws in pairs]
        try:
            yield list(zip(sitters, tasks, strict=True))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_gateway_that_is_told_to_end_lets_everybody_go(ground: Cluster, trial: Trial) -> None:
    ending = ground.nodes["gateway1"]
    url = f"ws://localhost:{ending.port}/ws"
    async with loading(ground, trial.history, seed=trial.seed) as load, crowd(ground, url, trial.seed) as sitters:
        assert {sitter.node for sitter, _ in sitters} == {"gateway1"}
        await load.until_acked(50, within_s=30)
        told = time.monotonic()
        ending.signal(signal.SIGTERM)
        await ending.until_not_ready(GRACE_S)
        code = await ending.ended(GRACE_S * PATIENCE)
        took_s = time.monotonic() - told
        await asyncio.gather(*(task for _, task in sitters))
        load_size = len(load.members)
        gone = sorted(sitter.gone_at - told for sitter, _ in sitters)
        per_second = Counter(int(at) for at in gone)
        log.info(
            "exit code %d after %.1f s; %d let go, in each second: %s; %d refused at the other",
            *(code, took_s, len(gone), [per_second[at] for at in range(int(gone[-1]) + 1)]),
            sum(sitter.refused for sitter, _ in sitters),
        )
        assert code == 0
        assert {sitter.code for sitter, _ in sitters} == {CLOSE_DRAIN}
        assert {sitter.node for sitter, _ in sitters} == {"gateway2"}
        # Evenly: none before the slice of time that is its own, and never many together, by when they were read here.
        assert all(at >= OVER_S * number / (len(gone) + load_size) for number, at in enumerate(gone))
        assert max(per_second.values()) <= TOGETHER * len(gone) / OVER_S
        await load.until_acked(50, within_s=30)
        # Told twice a gateway does not wait, though there is another one.
        await ending.start()
        last = ground.nodes["gateway2"]
        last.signal(signal.SIGTERM)
        await last.until_not_ready(GRACE_S)
        last.signal(signal.SIGTERM)
        assert await last.ended(GRACE_S) == FORCED
        await load.until_online(GRACE_S)
