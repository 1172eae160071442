"""Gateways that are called by gRPC on loopback, and what tests do to the way between."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

from app import settings
from app.cluster.base import Node
from app.cluster.ring import Ring
from app.delivery.base import BlobsByNode, ByNode, Channel, Delivery, Receiver
from app.delivery.grpc_access import Access
from app.delivery.grpc_push import GrpcDelivery
from app.delivery.grpc_server import PushServer
from app.lifecycle import Supervisor
from app.metrics import Metrics
from app.protocol.magpie_pb2 import Answer, Answers, Blob
from app.sections import Grpc

HOST = "127.0.0.1"
SECRET = "s" * 32
SLACK_S = 10.0
"""A busy machine is no defect."""
LOOK_S = 0.01


def options(**changed: Any) -> Grpc:
    """The defaults, on a free port, with a quick second try; patient, because the machine may be busy."""
    quick = {"host": HOST, "port": 0, "retry_min_s": 0.05, "retry_max_s": 0.2, "deadline_ms": 5000}
    return Grpc.model_validate(settings.load().grpc.model_dump() | quick | changed)


class Heard:
    """A Receiver that remembers."""

    def __init__(self) -> None:
        self.blobs: list[tuple[Channel, int]] = []
        self.answers: list[int] = []
        self.cuts = 0
        self.reconnects = 0
        self.changed = asyncio.Event()

    def on_blob(self, channel: Channel, blob: Blob) -> None:
        self.blobs.append((channel, blob.number))
        self.changed.set()

    def on_answers(self, answers: Answers) -> None:
        self.answers += [answer.request_id for answer in answers.answers]
        self.changed.set()

    def on_cut(self) -> None:
        self.cuts += 1

    def on_reconnected(self) -> None:
        self.reconnects += 1
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(SLACK_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Behind(Delivery):
    """What stands behind gRPC: remembers the answers that came this way."""

    def __init__(self) -> None:
        self.answers: list[int] = []

    async def start(self, node_id: str, receiver: Receiver | None, channels: Collection[Channel]) -> None:
        pass

    async def publish(self, channel: Channel, blob: Blob, answers: ByNode = MappingProxyType({})) -> None:
        await self.answer(answers)

    async def push(self, blobs: BlobsByNode, answers: ByNode) -> None:
        await self.answer(answers)

    async def answer(self, answers: ByNode) -> None:
        self.answers += [
            answer.request_id for batches in answers.values() for each in batches for answer in each.answers
        ]

    async def stop(self) -> None:
        pass


class Gateway:
    """One that others call: what it heard, and how it is registered."""

    def __init__(
        self, name: str = "g1", boot_id: str = "b", secret: str = SECRET, sees: bool = True, **changed: Any
    ) -> None:
        self.heard, self.metrics = Heard(), Metrics()
        self.name, self.boot_id, self.ready = name, boot_id, True
        access = Access(options(**changed), secret)
        self.server = PushServer(
            access,
            self.heard,
            lambda: sees,
            self.metrics,
            node_id=name,
            boot_id=boot_id,
            connections=lambda: 7,
            ready=lambda: self.ready,
        )

    def node(self, port: int | None = None) -> Node:
        address = f"{HOST}:{port}" if port else self.server.address
        return Node(self.name, self.boot_id, "wss://g/ws", address, 1, "up", "1", 8)


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[Gateway]:
    await gateway.server.start()
    try:
        yield gateway
    finally:
        await gateway.server.stop(1)


class Caller:
    """A process that answers."""

    def __init__(self, supervisor: Supervisor, behind: Delivery | None = None, **changed: Any) -> None:
        self.behind, self.metrics = Behind(), Metrics()
        chosen = options(**changed)
        self.delivery = GrpcDelivery(behind or self.behind, Access(chosen, SECRET), supervisor, self.metrics, chosen)
        self._ring = Ring((), 8)

    def register(self, *nodes: Node) -> None:
        """These are all there are."""
        old, self._ring = self._ring, Ring(nodes, 8)
        self.delivery.on_ring(old, self._ring)

    async def answer(self, *request_ids: int, node: str = "g1", boot_id: str = "b") -> None:
        answers = [Answer(request_id=number) for number in request_ids]
        await self.delivery.answer({node: [Answers(boot_id=boot_id, answers=answers)]})

    async def until_reached(self, node: str = "g1", boot_id: str = "b") -> None:
        """Answer nothing until answers would go by gRPC."""

        def reached() -> bool:
            peer, _ = self.delivery._peers.get(node, (None, None))
            return peer is not None and peer.usable and peer.node.boot_id == boot_id

        await until(reached, ask=lambda: self.answer(node=node, boot_id=boot_id))

    async def until_refused(self, node: str = "g1") -> None:
        """Answer until a try to reach the gateway failed."""
        await until(lambda: node in self.delivery._peers, ask=lambda: self.answer(node=node))
        await until(lambda: self.delivery._peers[node][0]._reason != "")
        assert not self.delivery._peers[node][0].usable

    def calls(self, result: str = "ok") -> float:
        return float(self.metrics.push_calls.labels(result)._value.get())

    def count(self, name: str) -> float:
        """A metric without labels."""
        value = self.metrics.registry.get_sample_value(name)
        assert value is not None
        return value


@asynccontextmanager
async def calling(supervisor: Supervisor, *gateways: Node, **changed: Any) -> AsyncIterator[Caller]:
    caller = Caller(supervisor, **changed)
    await caller.delivery.start("c1", None, ())
    caller.register(*gateways)
    try:
        yield caller
    finally:
        await caller.delivery.stop()


class Wire:
    """Passes bytes on to a port, until it is `frozen`: then it takes them and nothing comes back, as from a process that was stopped."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._flows = asyncio.Event()
        self._flows.set()
        self.port = 0
        self.connections = 0
        """Accepted so far."""

    def freeze(self) -> None:
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection(HOST, self._to_port)
        try:
            await asyncio.gather(self._pass(reader, there_writer), self._pass(there_reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            there_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flows.wait()
            writer.write(data)
        writer.close()


@asynccontextmanager
async def wire(to_port: int) -> AsyncIterator[Wire]:
    made = Wire(to_port)
    server = await asyncio.start_server(made._accept, HOST, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.thaw()
        server.close()


async def until(condition: Callable[[], bool], ask: Callable[[], object] = lambda: None) -> None:
    async with asyncio.timeout(SLACK_S):
        while not condition():
            if asyncio.iscoroutine(asked := ask()):
                await asked
            await asyncio.sleep(LOOK_S)
