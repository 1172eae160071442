"""Asks connections to go: `drain`, the answers they still wait for, close 4000; one after the other, so that no storm follows."""

import asyncio
import random
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Literal

import structlog

from app.metrics import Metrics
from app.protocol import frames
from app.web.gateway.connection import Connection
from app.web.gateway.hub import Hub
from app.web.gateway.sweeper import Closer

log = structlog.get_logger(__name__)

Cause = Literal["shutdown", "isolated", "ring"]
LOOK_S = 0.02


class Drainer:
    """Lets connections go over some time. Several drains may run at once; each connection is asked only once."""

    def __init__(
        self,
        hub: Hub,
        closer: Closer,
        metrics: Metrics,
        *,
        answers_s: float,
        close_timeout_s: float,
        retry_ms: int,
        admission_per_second: int,
    ) -> None:
        """`answers_s`: how long an asked one waits for its last answers; `retry_ms`: for how long it is told to stay away at least."""
        self._hub = hub
        self._closer = closer
        self._metrics = metrics
        self._answers_s = answers_s
        self._retry_ms = retry_ms
        self._admission_per_second = admission_per_second
        self._ending_s = answers_s + close_timeout_s
        """From asking to the end of a connection, at most."""

    async def drain(
        self,
        cause: Cause,
        connections: Sequence[Connection],
        within_s: float,
        wanted: Callable[[Connection], bool] = lambda _: True,
        deserted: Callable[[], bool] = lambda: False,
    ) -> int:
        """Ask each at a random moment of its own slice of the time; it is let go if it is still `wanted` to then.

        From when on it is `deserted`, and nobody is there to take them, the rest are asked at once.
        Returns how many that were, when all of them are gone: within `within_s`, or the time that one ending takes if that is longer.
        Who does not read until then is cut.
        """
        began = monotonic()
        over_s = max(0.0, within_s - self._ending_s)
        # The others shall not have to refuse them: where there is less time than that takes, they are told to come back later.
        later_s = self._later_s(len(connections), over_s)
        log.info("drain_began", cause=cause, connections=len(connections), over_s=over_s)
        asked = []
        for index, connection in enumerate(random.sample(connections, len(connections))):
            due = began + over_s * (index + random.random()) / len(connections)  # noqa: S311 - jitter, not a secret
            while monotonic() < due and over_s:
                await asyncio.sleep(min(LOOK_S, max(0.0, due - monotonic())))
                if deserted():
                    over_s, later_s = 0.0, self._later_s(len(connections) - index, 0.0)
            await asyncio.sleep(0)
            gone = connection.closing or connection.leaving or connection not in self._hub.connections
            if not gone and wanted(connection):
                self._ask(connection, self._retry_ms + round(1000 * later_s * random.random()))  # noqa: S311 - jitter
                self._metrics.connections_drained.labels(cause).inc()
                asked.append(connection)
        cut = await self._until_gone(asked.copy())
        log.info("drain_ended", cause=cause, asked=len(asked), cut=cut, seconds=round(monotonic() - began, 1))
        return len(asked)

    def _later_s(self, count: int, over_s: float) -> float:
        """For how long so many that go within `over_s` shall come back."""
        return max(0.0, count / self._admission_per_second - over_s)

    def _ask(self, connection: Connection, retry_after_ms: int) -> None:
        connection.send(frames.event("drain", {"retry_after_ms": retry_after_ms}))
        connection.leaving = True
        self._close_when_answered(connection, monotonic() + self._answers_s)

    def _close_when_answered(self, connection: Connection, deadline: float) -> None:
        if connection.unacked and monotonic() < deadline:
            asyncio.get_running_loop().call_later(LOOK_S, self._close_when_answered, connection, deadline)
        else:
            self._closer.close(connection, frames.CLOSE_DRAIN, "connect to another gateway")

    async def _until_gone(self, left: list[Connection]) -> int:
        """Wait for their ends, at most as long as those asked last have; cut the rest. Returns how many that were."""
        deadline = monotonic() + self._ending_s
        while left and monotonic() < deadline:
            if left[-1] in self._hub.connections:
                await asyncio.sleep(LOOK_S)
            else:
                left.pop()
        cut = [connection for connection in left if connection in self._hub.connections]
        for connection in cut:
            connection.abort()
        return len(cut)
