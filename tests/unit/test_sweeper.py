"""When the sweeper takes a client for gone: after two heartbeats without a word, and not sooner."""

import asyncio
import uuid
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp import web

from app.metrics import Metrics
from app.protocol.endpoint import Principal
from app.web.gateway import sweeper as sweeper_module
from app.web.gateway.connection import Connection, Outlet
from app.web.gateway.hub import Hub
from app.web.gateway.sweeper import Closer, Sweeper

HEARTBEAT_S, MOMENT_S = 30.0, 0.001
NOW_S = 1000.0


class Silent(Connection):
    """Says nothing, whatever it is asked."""

    __slots__ = ("asked",)

    def __init__(self, silent_s: float) -> None:
        super().__init__(
            1,
            cast(web.WebSocketResponse, None),
            cast(asyncio.Transport, None),
            Principal(1, uuid.uuid4(), 1 << 40),
            Outlet(),
            Metrics(),
            buffer_bytes=1 << 20,
            held_max=10,
            frames_per_second=20,
        )
        self.last_seen = self.last_ping = NOW_S - silent_s
        self.asked = False

    def ping(self, now: float) -> None:
        self.asked = True


async def swept(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeper looks at it once, at `NOW_S`."""
    looking = asyncio.Event()

    def now_s() -> float:
        looking.set()
        return NOW_S

    monkeypatch.setattr(sweeper_module, "monotonic", now_s)
    sweeper = Sweeper(
        cast(Hub, SimpleNamespace(connections={connection: None})),
        Closer(Metrics(), close_timeout_s=1),
        interval_s=0,
        heartbeat_s=HEARTBEAT_S,
        slow_close_s=60,
        pull_within_ms=0,
    )
    task = asyncio.ensure_future(sweeper.run())
    await looking.wait()
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize(
    ("silent_s", "asked", "closed"),
    [
        (HEARTBEAT_S, False, False),
        (HEARTBEAT_S + MOMENT_S, True, False),
        (2 * HEARTBEAT_S, True, False),
        (2 * HEARTBEAT_S + MOMENT_S, False, True),
    ],
)
async def test_a_silent_client_is_asked_after_one_heartbeat_and_closed_after_two(
    silent_s: float, asked: bool, closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = Silent(silent_s)
    await swept(connection, monkeypatch)
    assert (connection.asked, connection.closing) == (asked, closed)
