"""Numbers of blobs to single gateways: dense as long as a gateway is remembered, and never lower than before."""

from collections.abc import Collection, Sequence
from typing import cast

import pytest

from app.delivery import publisher as numbering
from app.delivery.base import BlobsByNode, ByNode, Channel
from app.delivery.memory import MemoryDelivery
from app.delivery.publisher import Publisher
from app.delivery.routes import GroupRoutes, Route
from app.metrics import Metrics
from app.protocol.magpie_pb2 import Event
from app.web.gateway.streams import Cause, Streams

GROUP = 7


class Pushing(MemoryDelivery):
    """Gateways that watch the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: dict[str, Streams] = {}
        self.noticed: list[tuple[str, Cause]] = []
        self.loses = False

    async def push(self, blobs: BlobsByNode, answers: ByNode) -> None:
        for node_id, of_node in blobs.items():
            for blob in of_node:
                if self.loses:
                    continue
                cause = self.streams.setdefault(node_id, Streams(Metrics())).see(
                    Channel.NODE, blob.publisher, blob.number
                )
                if cause:
                    self.noticed.append((node_id, cause))


class Routes:
    """Everything goes to `nodes`."""

    def __init__(self) -> None:
        self.nodes: Sequence[str] = ()

    async def read(self, group_ids: Collection[int]) -> Route:
        return Route(dict.fromkeys(group_ids, self.nodes), 10)


async def test_a_gateway_that_was_forgotten_notices_what_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbering, "MAX_NODES", 2)
    delivery, routes = Pushing(), Routes()
    publisher = Publisher(
        delivery,
        "boot",
        Metrics(),
        cast(GroupRoutes, routes),
        max_blob_bytes=262144,
        heads_interval_s=2,
        heads_active_s=10,
        max_tracked_groups=10,
    )

    async def push(*nodes: str) -> None:
        for routes.nodes in ([node] for node in nodes):
            await publisher.events([Event(group_id=GROUP)])

    await push("a", "a", "a", "b", "a", "b")
    assert delivery.noticed == []
    await push("c", "d")
    assert len(publisher._node_numbers) == 2
    delivery.noticed.clear()
    # Both were forgotten. The count goes on above that of a, which had the highest; b compares once, since it cannot know.
    await push("a", "b", "a", "b")
    assert delivery.noticed == [("b", "missed")]
    delivery.loses = True
    await push("a")
    delivery.loses = False
    await push("a")
    assert delivery.noticed[1:] == [("a", "missed")]
