"""Asking other gateways by gRPC whether they see the registry."""

import asyncio
from collections.abc import Sequence

import grpc.aio

from app.cluster.base import Node
from app.cluster.membership import Sight
from app.delivery.grpc_access import Access
from app.protocol.magpie_pb2 import SeesRegistryRequest, SeesRegistryResponse
from app.protocol.magpie_pb2_grpc import GatewayPushStub


class GrpcPeers:
    """Connects anew for each question: one that failed to connect before would not be tried again at once, and count as silent."""

    def __init__(self, access: Access, timeout_s: float) -> None:
        self._access = access
        self._timeout_s = timeout_s

    async def sees_registry(self, nodes: Sequence[Node]) -> Sight:
        """See Peers. Who answers at the address of a node, but is another or has another token, is silent."""
        answers = [None if state is None else state.sees for state in await self.states(nodes)]
        yes, no = answers.count(True), answers.count(False)
        return Sight(yes, no, len(answers) - yes - no)

    async def states(self, nodes: Sequence[Node]) -> list[SeesRegistryResponse | None]:
        """How each is, all asked at once; None: silent."""
        await self._access.load()
        return await asyncio.gather(*map(self._ask, nodes))

    async def _ask(self, node: Node) -> SeesRegistryResponse | None:
        if not node.grpc_address:
            return None
        request = SeesRegistryRequest(node_id=node.node_id)
        async with self._access.channel(node.grpc_address) as channel:
            try:
                return await GatewayPushStub(channel).SeesRegistry(
                    request, timeout=self._timeout_s, metadata=self._access.metadata
                )
            except grpc.aio.AioRpcError:
                return None
