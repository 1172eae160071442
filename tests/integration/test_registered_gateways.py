"""Gateways as processes that register themselves, and an api that tells users where to connect."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import aiohttp
import pytest

from app.errors import ConfigError
from app.protocol.frames import SUBPROTOCOL
from app.storage.redis import connect
from local.cluster import Cluster, Registry, Shape, cluster
from tests.running import PASSWORD
from tests.services import OPTIONS, server_folder

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(180)]

LEASE_S = 3.0
SLACK_S = 15.0
"""A busy machine is no defect."""
LOOK_S = 0.05


@pytest.fixture(
    params=[pytest.param(kind, marks=pytest.mark.xdist_group(f"registered-{kind}")) for kind in ("redis", "etcd")]
)
def registry(request: pytest.FixtureRequest) -> Registry:
    kind: Registry = request.param
    return kind


@pytest.fixture
async def running(registry: Registry) -> AsyncIterator[Cluster]:
    shape = Shape("redis_streams", gateways=2, consumers=0, registry=registry)
    with server_folder() as folder:
        try:
            async with cluster(
                folder,
                shape,
                OPTIONS,
                environment={"IM_ENV": "test", "IM_LIMITS__API_PER_MINUTE": "100000"},
                durable=False,
            ) as made:
                await made.start()
                yield made
        except ConfigError as error:
            if str(error).startswith("There is no etcd") and not os.environ.get("CI"):
                pytest.skip(str(error))
            raise


class Person:
    """Somebody who asks the api where to connect."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str) -> None:
        self._http = http
        self._url = url
        self.headers = {"Authorization": f"Bearer {token}"}

    async def place(self, **query: str) -> tuple[str, str]:
        """(node, URL)."""
        async with self._http.get(f"{self._url}/api/v1/gateway", params=query, headers=self.headers) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer["node"], answer["url"]

    async def until_placed(self) -> None:
        """Ask until the api knows a gateway."""
        async with asyncio.timeout(SLACK_S):
            while True:
                async with self._http.get(f"{self._url}/api/v1/gateway", headers=self.headers) as response:
                    if response.status != HTTPStatus.SERVICE_UNAVAILABLE:
                        return
                await asyncio.sleep(LOOK_S)

    async def until_sent(self, wanted: Callable[[str], bool], **query: str) -> None:
        """Ask until such a node is named; how soon that is says the full form of tests/faults/test_gateways.py."""
        since = time.monotonic()
        while not wanted((await self.place(**query))[0]):
            assert time.monotonic() - since < SLACK_S
            await asyncio.sleep(LOOK_S)

    async def hello(self, url: str) -> str:
        """The node that says hello there."""
        async with self._http.ws_connect(url, headers=self.headers, protocols=(SUBPROTOCOL,)) as ws:
            return str((await ws.receive_json(timeout=SLACK_S))["node"])

    async def connect_sources(self) -> set[str]:
        """Where a page that is loaded now may connect to."""
        async with self._http.get(f"{self._url}/login") as response:
            policy = response.headers["Content-Security-Policy"]
        return set(policy.partition("connect-src ")[2].partition(";")[0].split())

    async def upgrade(self, url: str) -> int:
        """The status of an attempt to connect there."""
        try:
            await self.hello(url)
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status
        return HTTPStatus.SWITCHING_PROTOCOLS


@pytest.fixture
async def person(running: Cluster) -> AsyncIterator[Person]:
    async with aiohttp.ClientSession() as http:
        body = {"username": "somebody", "password": PASSWORD}
        async with http.post(f"{running.url}/api/v1/auth/register", json=body) as response:
            answer = await response.json()
        person = Person(http, running.url, answer["token"])
        # The api looks twice a second; only then it knows the gateways, both of them.
        await person.until_placed()
        first, _ = await person.place()
        await person.until_sent(lambda node: node != first, **{"not": first})
        async with http.post(f"{running.url}/api/v1/auth/login", json=body) as response:
            answer = await response.json()
        assert answer["gateway"]["node"] == (await person.place())[0]
        yield person


async def test_users_are_sent_to_gateways_that_live(running: Cluster, person: Person) -> None:
    """One test of two promises, because starting the processes takes longest."""
    await a_registry_that_is_lost_changes_nothing(running, person)
    await users_follow_the_gateways(running, person)


async def users_follow_the_gateways(running: Cluster, person: Person) -> None:
    home, url = await person.place()
    other, other_url = await person.place(**{"not": home})
    assert {home, other} == set(running.nodes) - {"api1"}
    assert await person.hello(url) == home
    assert await person.hello(other_url) == other
    # Pages may connect to both.
    sources = await person.connect_sources()
    assert {url.removesuffix("/ws"), other_url.removesuffix("/ws")} <= sources

    await running.nodes[home].kill()
    await person.until_sent(lambda node: node == other)
    assert await person.place(**{"not": other}) == (other, other_url)

    # A new process under the same name has the same users.
    await running.nodes[home].start()
    await person.until_sent(lambda node: node == home)
    assert await person.hello(url) == home

    # Who is told to end says so at once.
    ending = asyncio.create_task(running.nodes[home].stop())
    await person.until_sent(lambda node: node == other)
    await ending

    # A copied configuration.
    await running.nodes[home].launch(IM_GATEWAY__NODE_ID=other)
    assert await running.nodes[home].ended() == 2
    assert f"gateway.node_id {other} is in use by another process" in running.nodes[home].tail()
    assert await person.hello(other_url) == other


async def a_registry_that_is_lost_changes_nothing(running: Cluster, person: Person) -> None:
    home, url = await person.place()
    if running.etcd is not None:
        running.etcd.freeze()
    named: set[str] = set()
    until_s = time.monotonic() + 2 * LEASE_S
    emptied = False
    while time.monotonic() < until_s:
        named.add((await person.place())[0])
        if not emptied and time.monotonic() > until_s - LEASE_S - 1:
            emptied = True
            await empty(running)
        await asyncio.sleep(LOOK_S)
    assert named == {home}
    # Until it has a lease again it takes no new connections.
    since = time.monotonic()
    while (await person.upgrade(url)) == HTTPStatus.SERVICE_UNAVAILABLE:
        assert time.monotonic() - since < SLACK_S
        await asyncio.sleep(LOOK_S)
    assert await person.hello(url) == home


async def empty(running: Cluster) -> None:
    """The registry starts anew, without anything in it."""
    if running.etcd is not None:
        running.etcd.forget()
        await running.etcd.start()
    else:
        client = connect(running.stores.redis_url, pool_max=1, connect_timeout_s=2, command_timeout_s=2)
        await client.flushall()
        await client.aclose()
