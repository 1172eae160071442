"""Where the contract of registries is tried: a real server of each kind that a test may break. A new adapter is one line in `PLACES`."""

import asyncio
import signal
import time
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any

import aiohttp

from app import settings
from app.cluster.base import Node, Registry, View
from app.cluster.etcd_registry import EtcdRegistry
from app.cluster.redis_registry import KEY, RedisRegistry
from app.sections import Etcd
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.redis import Redis
from app.storage.redis import connect as connect_redis
from local.etcd import EtcdServer
from tests.services import etcd, valkey_to_break

LEASE_S, TIMEOUT_S = 60.0, 30.0
"""Where a test is not about them: nothing ends by itself."""
SLACK_S = 20.0
"""A busy machine is no defect; what would never happen does not happen later either."""
LOOK_S = 0.02

_prefixes = count(1)


class Place(ABC):
    """One registry, and what happens to it."""

    def __init__(self) -> None:
        self._connected: list[Registry] = []

    @abstractmethod
    def _registry(self, lease_s: float, timeout_s: float) -> Registry:
        """An adapter, not started."""

    @abstractmethod
    async def write(self, node_id: str, value: bytes) -> None:
        """What is no work of ours stands where a node should."""

    @abstractmethod
    async def empty(self) -> None:
        """The server starts anew and knows nothing."""

    @abstractmethod
    def freeze(self) -> None:
        """It does not answer until `thaw`."""

    @abstractmethod
    def thaw(self) -> None:
        """It goes on."""

    async def connect(self, lease_s: float = LEASE_S, timeout_s: float = TIMEOUT_S) -> Registry:
        """As another process has it; disconnected at the end of the test."""
        registry = self._registry(lease_s, timeout_s)
        self._connected.append(registry)
        await registry.start()
        return registry

    async def close(self) -> None:
        """Of the test."""
        for registry in self._connected:
            await registry.stop()


class ValkeyPlace(Place):
    """A Valkey of the test's own."""

    def __init__(self, server: ValkeyProcess) -> None:
        super().__init__()
        self._server = server

    def _client(self) -> Redis:
        return connect_redis(self._server.url, pool_max=2, connect_timeout_s=2, command_timeout_s=2)

    def _registry(self, lease_s: float, timeout_s: float) -> Registry:
        return RedisRegistry(self._client(), lease_s=lease_s, timeout_s=timeout_s)

    async def write(self, node_id: str, value: bytes) -> None:
        client = self._client()
        await client.hset(KEY, node_id, value)
        await client.aclose()

    async def empty(self) -> None:
        await self._server.stop()
        await self._server.start()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._server._process is not None
        self._server._process.send_signal(number)


class EtcdPlace(Place):
    """The etcd of this process, and a folder of one test in it."""

    def __init__(self, server: EtcdServer) -> None:
        super().__init__()
        self._server = server
        self.options = etcd_options(server, prefix=f"test-{next(_prefixes)}/")

    def _registry(self, lease_s: float, timeout_s: float) -> Registry:
        return EtcdRegistry(self.options, lease_s=lease_s, timeout_s=timeout_s)

    async def write(self, node_id: str, value: bytes) -> None:
        key = f"{self.options.prefix}nodes/{node_id}"
        await call(self._server, "kv/put", key=text(key), value=b64encode(value).decode())

    async def empty(self) -> None:
        self._server.forget()
        await self._server.start()

    def freeze(self) -> None:
        self._server.freeze()

    def thaw(self) -> None:
        self._server.thaw()


def etcd_options(server: EtcdServer, **changed: object) -> Etcd:
    """The defaults, on this server."""
    return Etcd.model_validate(settings.load().etcd.model_dump() | {"endpoints": [server.address]} | changed)


async def call(server: EtcdServer, path: str, **fields: object) -> Any:
    """Ask etcd by hand."""
    async with aiohttp.ClientSession() as http, http.post(f"{server.address}/v3/{path}", json=fields) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def text(plain: str) -> str:
    """A key as etcd's gateway wants it."""
    return b64encode(plain.encode()).decode()


@asynccontextmanager
async def on_valkey() -> AsyncIterator[Place]:
    async with valkey_to_break() as server:
        yield ValkeyPlace(server)


@asynccontextmanager
async def on_etcd() -> AsyncIterator[Place]:
    yield EtcdPlace(await etcd.running())


PLACES: Mapping[str, Callable[[], AbstractAsyncContextManager[Place]]] = {"redis": on_valkey, "etcd": on_etcd}


def node(node_id: str, boot_id: str = "boot", **changed: Any) -> Node:
    fields: dict[str, Any] = {
        "ws_url": f"wss://{node_id}.example.org/ws",
        "grpc_address": "127.0.0.1:9090",
        "weight": 1,
        "state": "up",
        "version": "1",
        "virtual_nodes": 8,
    }
    return Node(node_id, boot_id, **fields | changed)


def ids(view: View) -> list[str]:
    return [node.node_id for node in view.nodes]


async def until(look: Callable[[], Awaitable[bool]], within_s: float = SLACK_S) -> float:
    """Look until it is so; how long that took."""
    since = time.monotonic()
    while not await look():
        assert time.monotonic() - since < within_s, "it never came to be so"
        await asyncio.sleep(LOOK_S)
    return time.monotonic() - since
