"""When a gateway asks its connections to go, by a clock that stands still while it works: each in a slice of the time of its own."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.metrics import Metrics
from app.web.gateway import drain as drain_module
from app.web.gateway.connection import Connection
from app.web.gateway.drain import Drainer
from app.web.gateway.hub import Hub
from app.web.gateway.sweeper import Closer

COUNT = 400
OVER_S, ENDING_S = 20.0, 2.0


class Clock:
    """Goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Asked:
    """A connection that goes as soon as it is asked, as far as a drain looks at it."""

    def __init__(self, hub: "Everybody", clock: Clock) -> None:
        self._hub = hub
        self._clock = clock
        self.closing = self.leaving = False
        self.unacked = 0
        self.at_s: list[float] = []

    def send(self, _: bytes) -> None:
        self.at_s.append(self._clock.now_s)
        self._hub.connections.discard(self)


class Everybody:
    """Who is connected."""

    def __init__(self) -> None:
        self.connections: set[Asked] = set()


class Closing:
    """They are gone already."""

    def close(self, connection: Asked, code: int, reason: str) -> None:
        """Nothing is left to do."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(drain_module, "monotonic", clock.monotonic)
    monkeypatch.setattr(
        drain_module, "asyncio", SimpleNamespace(sleep=clock.sleep, get_running_loop=asyncio.get_running_loop)
    )
    return clock


async def drained(clock: Clock, within_s: float, **options: Any) -> Sequence[float]:
    """When each was asked, in seconds since the beginning, rising."""
    everybody = Everybody()
    everybody.connections = {Asked(everybody, clock) for _ in range(COUNT)}
    connections = list(everybody.connections)
    drainer = Drainer(
        cast(Hub, everybody),
        cast(Closer, Closing()),
        Metrics(),
        answers_s=ENDING_S / 2,
        close_timeout_s=ENDING_S / 2,
        retry_ms=1000,
        admission_per_second=500,
    )
    began = clock.now_s
    assert await drainer.drain("shutdown", cast(Sequence[Connection], connections), within_s, **options) == COUNT
    assert all(len(connection.at_s) == 1 for connection in connections)
    return sorted(connection.at_s[0] - began for connection in connections)


async def test_each_is_asked_in_its_own_slice_of_the_time(clock: Clock) -> None:
    asked = await drained(clock, OVER_S + ENDING_S)
    slice_s = OVER_S / COUNT
    for number, at_s in enumerate(asked):
        assert number * slice_s <= at_s <= (number + 1) * slice_s + drain_module.LOOK_S


async def test_where_there_is_no_time_all_are_asked_at_once(clock: Clock) -> None:
    assert set(await drained(clock, ENDING_S)) == {0.0}


async def test_from_when_nobody_is_there_to_take_them_the_rest_is_asked_at_once(clock: Clock) -> None:
    alone_s = clock.now_s + OVER_S / 2
    asked = await drained(clock, OVER_S + ENDING_S, deserted=lambda: clock.now_s >= alone_s)
    assert asked[-1] <= OVER_S / 2 + drain_module.LOOK_S
    assert sum(at_s < OVER_S / 2 for at_s in asked) == pytest.approx(COUNT / 2, abs=2)
