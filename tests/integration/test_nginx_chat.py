"""Chatting through a real Nginx with the project's client: the right gateway, reloads, and the death of what is behind."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
import pytest_asyncio

from app.client.api import Api
from app.client.client import Client
from app.client.events import MessageReceived, StateChanged
from app.client.options import ClientOptions
from app.protocol.frames import SUBPROTOCOL
from local.cluster import Cluster
from local.nginx import Nginx
from tests.proxied import http_to, nginx_of, registered, trusting

OPTIONS = ClientOptions(backoff_base_ms=50, backoff_max_ms=500)
RECOVERY_S = 20
LOOK_S = 0.02
RELOADS = 3
PEOPLE = 6

# The first test waits for the cluster, too.
pytestmark = [
    pytest.mark.xdist_group("nginx"),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(180),
]


class Reader:
    """A client, what it has read and what became of its connection."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.texts: list[str] = []
        self.states: Counter[str] = Counter()

    async def read(self) -> None:
        async for event in self.client.events():
            if isinstance(event, MessageReceived):
                self.texts.append(event.message.body)
            elif isinstance(event, StateChanged):
                self.states[event.state] += 1

    async def until_read(self, texts: list[str]) -> None:
        async with asyncio.timeout(RECOVERY_S):
            while len(self.texts) < len(texts):
                await asyncio.sleep(LOOK_S)
        assert self.texts == texts


@asynccontextmanager
async def readers(cluster: Cluster, apis: list[Api]) -> AsyncIterator[list[Reader]]:
    """Everybody, connected and reading."""
    tls = trusting(nginx_of(cluster))
    clients = [Client(cluster.url, api.token or "", tls=tls, options=OPTIONS) for api in apis]
    made: list[Reader] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            made.extend([Reader(await client.__aenter__()) for client in clients])
            reading = [tasks.create_task(reader.read()) for reader in made]
            try:
                yield made
            finally:
                for one in reading:
                    one.cancel()
    finally:
        for reader in made:
            await reader.client.__aexit__(None, None, None)


@pytest_asyncio.fixture(loop_scope="session")
async def http(proxied: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    async with http_to(nginx_of(proxied)) as session:
        yield session


NewGroup = Callable[[str], Awaitable[tuple[list[Api], str]]]


@pytest_asyncio.fixture(loop_scope="session")
async def group_of(proxied: Cluster, http: aiohttp.ClientSession) -> NewGroup:
    async def make(name: str) -> tuple[list[Api], str]:
        apis = [await registered(http, nginx_of(proxied), f"{name}_{number}") for number in range(PEOPLE)]
        group = await apis[0].create_group(name)
        for api in apis[1:]:
            await api.join(group.id)
        return apis, group.id

    return make


async def test_people_chat_through_the_proxy(proxied: Cluster, group_of: NewGroup) -> None:
    apis, group = await group_of("chat")
    told = {(await api.gateway()).url for api in apis}
    assert told <= {f"wss://localhost:{nginx_of(proxied).port}/ws/gateway{n}" for n in (1, 2)}
    async with readers(proxied, apis) as people:
        texts = []
        for reader in people:
            texts.append(f"hello from {reader.client.user_id}")
            await reader.client.send(group, texts[-1])
        for reader in people:
            await reader.until_read(texts)


@pytest.mark.parametrize("node", ["gateway1", "gateway2"])
async def test_a_socket_is_opened_at_the_node_in_its_address(
    proxied: Cluster, http: aiohttp.ClientSession, node: str
) -> None:
    api = await registered(http, nginx_of(proxied), f"at_{node}")
    for _ in range(5):
        assert await node_at(http, api, f"/ws/{node}") == node


async def test_sockets_without_a_known_node_are_spread(proxied: Cluster, http: aiohttp.ClientSession) -> None:
    api = await registered(http, nginx_of(proxied), "anywhere")
    nodes = [await node_at(http, api, path) for path in ("/ws", "/ws/gateway3") * 4]
    assert set(nodes) == {"gateway1", "gateway2"}


async def node_at(http: aiohttp.ClientSession, api: Api, path: str) -> str:
    headers = {"Authorization": f"Bearer {api.token}"}
    async with http.ws_connect(path, headers=headers, protocols=(SUBPROTOCOL,)) as ws:
        return str((await ws.receive_json())["node"])


async def _reload_often(nginx: Nginx) -> None:
    for _ in range(RELOADS):
        await nginx.reload()


async def test_a_reload_cuts_no_socket_and_loses_no_message(proxied: Cluster, group_of: NewGroup) -> None:
    nginx = nginx_of(proxied)
    apis, group = await group_of("reload")
    async with readers(proxied, apis) as people:
        before = set(nginx.workers())
        texts: list[str] = []
        reloads = asyncio.create_task(_reload_often(nginx))
        while not reloads.done():
            texts.append(f"message {len(texts)}")
            await people[len(texts) % PEOPLE].client.send(group, texts[-1])
        await reloads
        for reader in people:
            await reader.until_read(texts)
            assert reader.states["waiting"] == 0 and reader.client.state == "online"
        assert before & set(nginx.workers()), "the old workers are gone"
        assert len(texts) > RELOADS
    async with asyncio.timeout(RECOVERY_S):
        while before & set(nginx.workers()):
            await asyncio.sleep(LOOK_S)


async def test_who_was_at_a_killed_gateway_is_back_at_the_other(proxied: Cluster, group_of: NewGroup) -> None:
    apis, group = await group_of("killed")
    victim = proxied.nodes[(await apis[0].gateway()).node]
    there = [api for api in apis if (await api.gateway()).node == victim.name]
    async with readers(proxied, apis) as people:
        await people[0].client.send(group, "before")
        await victim.kill()
        for number, reader in enumerate(people):
            await reader.client.send(group, f"after {number}")
        for reader in people:
            await reader.until_read(["before", *(f"after {number}" for number in range(PEOPLE))])
        moved = [reader for reader in people if reader.states["waiting"]]
        assert {reader.client.user_id for reader in moved} == {(await api.me()).id for api in there}
    await victim.start()


async def test_questions_are_answered_while_an_api_is_killed(proxied: Cluster, http: aiohttp.ClientSession) -> None:
    api = await registered(http, nginx_of(proxied), "asking")
    victim = proxied.nodes["api1"]
    asked = 0

    async def ask() -> None:
        nonlocal asked
        while not done.is_set():
            await api.groups()
            asked += 1

    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(ask())
        while asked < 50:
            await asyncio.sleep(LOOK_S)
        await victim.kill()
        at_death = asked
        while asked < at_death + 50:
            await asyncio.sleep(LOOK_S)
        done.set()
    await victim.start()
