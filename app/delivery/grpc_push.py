"""Answers by gRPC to the gateway that asked, in front of another delivery that carries everything else."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType

from app.cluster.base import Node
from app.cluster.ring import Ring
from app.delivery.base import BlobsByNode, ByNode, Channel, Delivery, Receiver
from app.delivery.grpc_access import Access
from app.delivery.grpc_peer import Peer
from app.lifecycle import Supervisor
from app.metrics import Metrics
from app.protocol.magpie_pb2 import Answers, Blob
from app.sections import Grpc

STOP_S = 1.0
"""For a call under way that is cancelled."""

Call = tuple[str, Sequence[Answers], asyncio.Future[bool]]


class GrpcDelivery(Delivery):
    """Answers go to a gateway's registered address while it can be reached there, else by the delivery behind, at once.

    Blobs go by the delivery behind always, at the same time, so answers may overtake them. A call that failed may have been carried out:
    its answers go by the delivery behind too, and may arrive twice. `publish` and `answer` return when each answer was taken by one of the
    two ways; a gateway that does not answer holds them up for `grpc.deadline_ms`, once for each outage.
    """

    def __init__(
        self, behind: Delivery, access: Access, supervisor: Supervisor, metrics: Metrics, options: Grpc
    ) -> None:
        self._behind = behind
        self._access = access
        self._supervisor = supervisor
        self._metrics = metrics
        self._options = options
        self._nodes: Mapping[str, Node] = {}
        self._peers: dict[str, tuple[Peer, asyncio.Task[None]]] = {}
        """Only gateways that were answered: who never answers connects to nobody."""
        self._wanted: set[str] = set()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def on_ring(self, _: Ring, ring: Ring) -> None:
        """The registered gateways changed."""
        self._nodes = ring.nodes
        self._changed.set()

    async def start(self, node_id: str, receiver: Receiver | None, channels: Collection[Channel]) -> None:
        """See Delivery. Raises ConfigError when a certificate cannot be used."""
        await self._access.load()
        await self._behind.start(node_id, receiver, channels)
        self._task = self._supervisor.spawn(self._follow(), "grpc_push")

    async def publish(self, channel: Channel, blob: Blob, answers: ByNode = MappingProxyType({})) -> None:
        """See Delivery."""
        async with self._calling(answers) as rest:
            await self._behind.publish(channel, blob, rest)

    async def push(self, blobs: BlobsByNode, answers: ByNode) -> None:
        """See Delivery."""
        async with self._calling(answers) as rest:
            await self._behind.push(blobs, rest)

    async def answer(self, answers: ByNode) -> None:
        """See Delivery."""
        async with self._calling(answers) as rest:
            if rest:
                await self._behind.answer(rest)

    async def stop(self) -> None:
        """See Delivery."""
        if self._task is not None:
            await self._supervisor.end(self._task, STOP_S)
        for node_id in list(self._peers):
            await self._part(node_id)
        await self._behind.stop()

    @asynccontextmanager
    async def _calling(self, answers: ByNode) -> AsyncIterator[ByNode]:
        """Calls are under way in the block, which hands over the rest."""
        calls, rest = self._begin(answers)
        try:
            yield rest
        finally:
            # Also when it failed: what is handed over again must not meet calls of the first time.
            await self._finish(calls)

    def _begin(self, answers: ByNode) -> tuple[list[Call], dict[str, Sequence[Answers]]]:
        """Start the calls; what goes by the delivery behind."""
        calls: list[Call] = []
        rest: dict[str, Sequence[Answers]] = {}
        for node_id, batches in answers.items():
            node = self._nodes.get(node_id)
            boot_id = node.boot_id if node is not None and node.grpc_address else None
            mine = [each for each in batches if each.boot_id == boot_id]
            outcome = self._push(node_id, mine) if mine else None
            if outcome is None:
                self._fall_back(mine)
                rest[node_id] = batches
                continue
            calls.append((node_id, mine, outcome))
            # Another life of the node finds its own by the name, or is over.
            if others := [each for each in batches if each.boot_id != boot_id]:
                rest[node_id] = others
        return calls, rest

    def _push(self, node_id: str, answers: Sequence[Answers]) -> asyncio.Future[bool] | None:
        if node_id not in self._peers:
            self._wanted.add(node_id)
            self._changed.set()
            return None
        peer, _ = self._peers[node_id]
        return peer.push(answers) if _same(peer.node, self._nodes[node_id]) else None

    async def _finish(self, calls: Sequence[Call]) -> None:
        lost = {node_id: answers for node_id, answers, outcome in calls if not await outcome}
        if lost:
            for answers in lost.values():
                self._fall_back(answers)
            await self._behind.answer(lost)

    def _fall_back(self, answers: Sequence[Answers]) -> None:
        self._metrics.push_fallbacks.inc(sum(len(each.answers) for each in answers))

    async def _follow(self) -> None:
        """Keep a peer for each registered gateway that was answered, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for node_id, (peer, _) in list(self._peers.items()):
                if node_id not in self._nodes or not _same(peer.node, self._nodes[node_id]):
                    await self._part(node_id)
            wanted, self._wanted = self._wanted, set()
            for node_id in wanted & self._nodes.keys() - self._peers.keys():
                peer = Peer(self._nodes[node_id], self._access, self._metrics, self._options)
                self._peers[node_id] = peer, self._supervisor.spawn(peer.run(), "grpc_peer")

    async def _part(self, node_id: str) -> None:
        _, task = self._peers.pop(node_id)
        await self._supervisor.end(task, STOP_S)


def _same(one: Node, other: Node) -> bool:
    """Whether both are the same process at the same address."""
    return (one.boot_id, one.grpc_address) == (other.boot_id, other.grpc_address)
