"""Who is moved to a gateway that came, though the registry was away when their turn came."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast
from uuid import uuid4

import pytest

from app.cluster.ring import Ring
from app.protocol.endpoint import Principal
from app.settings import load
from app.web.gateway.connection import Connection
from app.web.gateway.drain import Drainer
from app.web.gateway.hub import Hub
from app.web.gateway.moving import Mover
from tests.contract.registries import node

USERS = range(100)


class Socket:
    """What a connection is to the mover."""

    def __init__(self, user_id: int) -> None:
        self.principal = Principal(user_id, uuid4(), 1 << 40)


class Gateway:
    """`a`, with its users; the others of the ring are elsewhere. Whoever is asked to go is gone."""

    def __init__(self) -> None:
        self.ring = Ring([node("a")], 8)
        self.accepting = True
        self.asked_while_away = asyncio.Event()
        self.connections = dict.fromkeys(cast(Connection, Socket(user_id)) for user_id in USERS)
        quick = load().cluster.model_copy(update={"move_settle_s": 0.01, "move_over_s": 0.0})
        self.mover = Mover(cast(Hub, self), cast(Drainer, self), self, "a", quick)

    async def drain(
        self, cause: str, connections: Sequence[Connection], within_s: float, wanted: Callable[[Connection], bool]
    ) -> None:
        for number, connection in enumerate(connections):
            if number == 1 and not self.asked_while_away.is_set():
                self.accepting = False
            if wanted(connection):
                del self.connections[connection]
        self.asked_while_away.set()

    def comes(self, name: str) -> None:
        old, self.ring = self.ring, Ring([*self.ring.nodes.values(), node(name)], 8)
        self.mover.on_ring(old, self.ring)

    @property
    def misplaced(self) -> list[int]:
        users = [connection.principal.user_id for connection in self.connections]
        return [user_id for user_id in users if (owner := self.ring.node_of(user_id)) and owner.node_id != "a"]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    made = Gateway()
    running = asyncio.create_task(made.mover.run())
    yield made
    running.cancel()
    await asyncio.wait({running})


async def test_who_missed_their_turn_while_the_registry_was_away_get_another(gateway: Gateway) -> None:
    gateway.comes("b")
    async with asyncio.timeout(10):
        await gateway.asked_while_away.wait()
        assert gateway.misplaced
        gateway.accepting = True
        while gateway.misplaced:
            await asyncio.sleep(0.01)
    assert gateway.connections
