"""A cluster on this machine: real PostgreSQL and Valkey, a broker, and a process per role. For `make cluster`, tests and benchmarks."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Literal

from app.sections import Embedded
from app.storage.embedded import EmbeddedServers, embedded_servers
from local.etcd import EtcdServer
from local.kafka import KafkaServer
from local.nginx import Nginx
from local.node import Node, OnLine
from local.ports import HOST, free_ports

Broker = Literal["redis_streams", "kafka"]
Registry = Literal["list", "redis", "etcd"]


class BrokerKind(StrEnum):
    """The same, for command lines."""

    redis_streams = "redis_streams"
    kafka = "kafka"


class RegistryKind(StrEnum):
    """The same, for command lines."""

    list = "list"
    redis = "redis"
    etcd = "etcd"


OnStep = Callable[[str], None]
STARTUP_WAIT_S = "120"
"""Start order does not matter: everybody waits this long for what is missing."""


@dataclass(frozen=True)
class Shape:
    """How many processes of each role, on which broker; gateways in a registry, or as a list that everybody has."""

    broker: Broker
    apis: int = 1
    gateways: int = 2
    consumers: int = 2
    registry: Registry = "list"
    nginx: bool = False
    """With a proxy in front, by which everybody comes in."""


@dataclass(frozen=True)
class Ports:
    """First ports of the roles, the others follow; 0: any free ones."""

    api: int = 0
    gateway: int = 0
    metrics: int = 0
    nginx: int = 0


class Cluster:
    """Stores and nodes by name (`api1`, `gateway1`, `consumer1` …). Use `cluster`; nodes are started by whoever uses it."""

    def __init__(
        self,
        folder: Path,
        stores: EmbeddedServers,
        kafka: KafkaServer | None,
        secret: str,
        etcd: EtcdServer | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self.stores = stores
        self.kafka = kafka
        self.etcd = etcd
        self.secret = secret
        self.nodes: dict[str, Node] = {}
        self.nginx: Nginx | None = None

    @property
    def url(self) -> str:
        """Where clients begin: the proxy, else the first api."""
        return self.nginx.url if self.nginx else self.nodes["api1"].url

    @property
    def dsn(self) -> str:
        """PostgreSQL."""
        return self.stores.dsn

    def tail(self) -> str:
        """The ends of all nodes' logs."""
        return "\n".join(f"--- {node.name}\n{node.tail()}" for node in self.nodes.values())

    def of_role(self, role: str) -> list[Node]:
        """The nodes of a role, in order."""
        return [node for node in self.nodes.values() if node.role == role]

    async def start(self) -> None:
        """Start every node at once and wait until all are ready. Raises NodeFailed, and ConfigError where Nginx does not start."""
        for node in self.nodes.values():
            await node.launch()
        if self.nginx is not None:
            await self.configure_nginx(self.nginx)
            await self.nginx.start()
        for node in self.nodes.values():
            await node.until_ready()

    async def configure_nginx(self, nginx: Nginx, options: Sequence[str] = ()) -> None:
        """Write its configuration, for the nodes there are now. Raises ConfigError."""
        apis = [f"{HOST}:{node.port}" for node in self.of_role("api")]
        gateways = {node.name: f"{HOST}:{node.port}" for node in self.of_role("gateway")}
        await nginx.configure(apis, gateways, self.nodes["api1"].environment, options)

    async def stop(self) -> None:
        """End the nodes: first who takes new work, then who finishes it."""
        for role in ("gateway", "api", "consumer"):
            await asyncio.gather(*(node.stop() for node in self.of_role(role)))
        # Last: what the others say at the end goes through it.
        if self.nginx is not None:
            await self.nginx.stop()


@asynccontextmanager
async def cluster(
    folder: Path,
    shape: Shape,
    options: Embedded,
    *,
    ports: Ports = Ports(),
    environment: Mapping[str, str] | None = None,
    durable: bool = True,
    secret: str = "",
    on_step: OnStep = lambda _: None,
    on_line: OnLine | None = None,
) -> AsyncIterator[Cluster]:
    """The stores run while the block does; the nodes are there but not started. What still runs at the end is stopped.

    `environment` is added to every node's. `on_line` gets their output, which else goes to files in `folder`. Raises ConfigError.
    """
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, before anything runs
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(
            embedded_servers(folder / "data", options, on_step=on_step, durable=durable)
        )
        kafka = None
        if shape.broker == "kafka":
            on_step("Starting Kafka …")
            kafka = KafkaServer(folder / "kafka")
            stack.push_async_callback(kafka.stop)
            await kafka.start()
            on_step("Kafka runs")
        etcd = None
        if shape.registry == "etcd":
            etcd = EtcdServer(folder / "etcd")
            stack.push_async_callback(etcd.stop)
            await etcd.start()
        made = Cluster(folder, stores, kafka, secret or secrets.token_hex(32), etcd)
        if shape.nginx:
            made.nginx = Nginx(folder / "nginx", *_ports(ports.nginx, 1))
        add_nodes(made, shape, ports, environment or {}, on_line)
        stack.push_async_callback(made.stop)
        yield made


def add_nodes(
    made: Cluster, shape: Shape, ports: Ports, environment: Mapping[str, str], on_line: OnLine | None
) -> None:
    """Make the nodes of `shape`; does not start them."""
    api_ports, gateway_ports = _ports(ports.api, shape.apis), _ports(ports.gateway, shape.gateways)
    gateways = {f"gateway{n}": port for n, port in enumerate(gateway_ports, 1)}
    if made.nginx is not None:
        public_url = made.nginx.url
        # In a registry gateways say so themselves.
        urls = (
            {}
            if shape.registry != "list"
            else {name: f"wss://localhost:{made.nginx.port}/ws/{name}" for name in gateways}
        )
    else:
        public_url = f"http://localhost:{api_ports[0]}"
        urls = {name: f"ws://localhost:{port}/ws" for name, port in gateways.items()}
    common = {
        "IM_POSTGRES__DSN": made.stores.dsn,
        "IM_REDIS__URL": made.stores.redis_url,
        "IM_POSTGRES__STARTUP_WAIT_S": STARTUP_WAIT_S,
        "IM_REDIS__STARTUP_WAIT_S": STARTUP_WAIT_S,
        "IM_BROKER__STARTUP_WAIT_S": STARTUP_WAIT_S,
        "IM_AUTH__SECRET": made.secret,
        "IM_BROKER__KIND": shape.broker,
        "IM_DELIVERY__KIND": "redis_pubsub",
        "IM_HTTP__PUBLIC_URL": public_url,
        "IM_HTTP__TRUSTED_PROXIES": HOST if made.nginx else "",
        "IM_DATA_DIR": str(made.folder / "data"),
        # Everything shares one PostgreSQL for laptops.
        "IM_POSTGRES__POOL_MAX": "6",
    }
    if made.kafka is not None:
        common["IM_KAFKA__BOOTSTRAP_SERVERS"] = made.kafka.address
    if made.etcd is not None:
        common["IM_ETCD__ENDPOINTS"] = made.etcd.address
    if shape.registry != "list":
        common |= {
            "IM_CLUSTER__REGISTRY": shape.registry,
            "IM_CLUSTER__STARTUP_WAIT_S": STARTUP_WAIT_S,
            # They share a machine.
            "IM_GRPC__PORT": "0",
        }
    else:
        common["IM_GATEWAY__NODES"] = ",".join(f"{name}={url}" for name, url in urls.items())
    wanted = [(f"api{n}", "api", port) for n, port in enumerate(api_ports, 1)]
    wanted += [(name, "gateway", port) for name, port in gateways.items()]
    wanted += [(f"consumer{n}", "consumer", port) for n, port in enumerate(_ports(0, shape.consumers), 1)]
    metrics = count(ports.metrics) if ports.metrics else None
    for name, role, port in wanted:
        own = {
            "IM_ROLE": role,
            "IM_HTTP__PORT": str(port),
            "IM_METRICS__PORT": str(next(metrics) if metrics else 0),
            "IM_GATEWAY__NODE_ID": name,
            "IM_GATEWAY__PUBLIC_WS_URL": urls.get(name, ""),
        }
        made.nodes[name] = Node(
            name, role, port, {**common, **own, **environment}, made.folder / f"{name}.log", on_line
        )


def _ports(first: int, number: int) -> list[int]:
    """`number` ports from `first` on, or free ones."""
    if first:
        return list(range(first, first + number))
    return free_ports(number)
