"""Of all connections of a user the newest stays: gateways decide alike, in whatever order they hear, and however their clocks go."""

import asyncio
import itertools
import uuid
from collections.abc import Callable
from typing import cast

import pytest
from aiohttp import web

from app.delivery.publisher import Publisher
from app.metrics import Metrics
from app.protocol.endpoint import Principal
from app.protocol.frames import CLOSE_KICKED
from app.protocol.magpie_pb2 import Blob
from app.web.gateway import devices
from app.web.gateway.connection import Connection, Outlet
from app.web.gateway.devices import NewestOnly

ANN = 1
METRICS = Metrics()
_numbers = itertools.count()
TURNS = 10
"""Of the loop: enough for everything that waits for nothing."""


class Gateway:
    """One process with the policy; what it tells waits until the test hands it over or loses it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.told: list[Blob] = []
        self.open: list[Connection] = []
        self.newest = NewestOnly(cast(Publisher, self), self.close, name)

    async def control(self, blob: Blob) -> bool:
        blob.publisher = self.name
        self.told.append(blob)
        return True

    def close(self, connection: Connection, code: int, reason: str) -> None:
        assert (code, reason) == (CLOSE_KICKED, "replaced")
        self.open.remove(connection)
        self.newest.went(connection)

    def connect(self) -> Connection:
        connection = Connection(
            next(_numbers),
            cast(web.WebSocketResponse, None),
            cast(asyncio.Transport, None),
            Principal(ANN, uuid.uuid4(), 1 << 40),
            Outlet(),
            METRICS,
            buffer_bytes=1 << 20,
            held_max=10,
            frames_per_second=20,
        )
        # Nothing is written: there is no socket.
        connection.closing = True
        self.open.append(connection)
        self.newest.came(connection)
        return connection

    async def speak(self) -> list[Blob]:
        """What it has to tell by now."""
        task = asyncio.ensure_future(self.newest.run())
        for _ in range(TURNS):
            await asyncio.sleep(0)
        task.cancel()
        told, self.told = self.told, []
        return told


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "LINGER_S", 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the clock of both, in ms."""
    return lambda ms: monkeypatch.setattr(devices, "time_ns", lambda: ms * 1_000_000)


async def settle(*gateways: Gateway) -> None:
    """Everything that is told reaches everybody, until nobody has more to say."""
    for _ in range(10):
        told = [blob for gateway in gateways for blob in await gateway.speak()]
        if not told:
            return
        for blob in told:
            for gateway in gateways:
                gateway.newest.on_control(blob)
    pytest.fail("they never stop telling each other")


def left(*gateways: Gateway) -> list[Connection]:
    return [connection for gateway in gateways for connection in gateway.open]


async def test_the_older_one_ends_on_the_same_gateway_and_on_another() -> None:
    a, b = Gateway("a"), Gateway("b")
    a.connect()
    second = a.connect()
    assert a.open == [second]
    third = b.connect()
    await settle(a, b)
    assert left(a, b) == [third]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_at_the_same_instant_exactly_one_stays(order: tuple[int, ...], clock: Callable[[int], None]) -> None:
    clock(1000)
    gateways = [Gateway(name) for name in "abc"]
    for gateway in gateways:
        gateway.connect()
    told = [await gateway.speak() for gateway in gateways]
    for index in order:
        for blob in told[index]:
            for gateway in gateways:
                gateway.newest.on_control(blob)
    await settle(*gateways)
    assert left(*gateways) == gateways[2].open
    assert len(gateways[2].open) == 1


async def test_a_clock_that_is_behind_does_not_make_a_new_connection_old(clock: Callable[[int], None]) -> None:
    a, b = Gateway("a"), Gateway("b")
    clock(9000)
    a.connect()
    await settle(a, b)
    clock(1000)
    second = b.connect()
    await settle(a, b)
    assert left(a, b) == [second]


async def test_a_lost_word_is_made_good_by_either_side() -> None:
    for speaker in range(2):
        a, b = Gateway("a"), Gateway("b")
        a.connect()
        second = b.connect()
        await a.speak()
        await b.speak()
        assert len(left(a, b)) == 2
        (a, b)[speaker].newest.tell_again([ANN, 99])
        await settle(a, b)
        assert left(a, b) == [second]


async def test_who_has_gone_is_not_told_of() -> None:
    a = Gateway("a")
    connection = a.connect()
    a.newest.went(connection)
    assert await a.speak() == []
