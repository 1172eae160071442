"""One pass over all connections, twice a second: heartbeats, slow readers, expired sessions. And the closing of sockets."""

import asyncio
from time import monotonic

import structlog

from app.metrics import Metrics
from app.protocol.frames import CLOSE_GOING_AWAY, CLOSE_REVOKED, CLOSE_SLOW
from app.web.gateway.connection import Connection
from app.web.gateway.hub import Hub

log = structlog.get_logger(__name__)

PARALLEL_CLOSES = 256
CONNECTIONS_PER_TURN = 1000


class Closer:
    """Closes sockets with a close frame in bounded parallel; cuts those that do not answer in time."""

    def __init__(self, metrics: Metrics, close_timeout_s: float) -> None:
        self._metrics = metrics
        self._close_timeout_s = close_timeout_s
        self._queue: asyncio.Queue[tuple[Connection, int, str]] = asyncio.Queue()
        """Bounded by the number of connections: each is queued once."""

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """Close soon; nothing more is queued for the connection."""
        if not connection.closing:
            connection.write_out()
            connection.closing = True
            self._metrics.connections_closed.labels(str(code)).inc()
            self._queue.put_nowait((connection, code, reason))

    async def run(self) -> None:
        """Close until cancelled."""
        slots = asyncio.Semaphore(PARALLEL_CLOSES)
        async with asyncio.TaskGroup() as tasks:
            while True:
                connection, code, reason = await self._queue.get()
                await slots.acquire()
                task = tasks.create_task(self._close(connection, code, reason))
                task.add_done_callback(lambda _: slots.release())

    async def _close(self, connection: Connection, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(self._close_timeout_s):
                # drain=False: a peer that does not read would keep us here.
                await connection.ws.close(code=code, message=reason.encode()[:123], drain=False)
        except (TimeoutError, OSError, RuntimeError):
            log.debug("close_timed_out", connection=connection.number)
        finally:
            connection.abort()

    async def close_all(self, hub: Hub, deadline_s: float) -> None:
        """Shutdown: close every connection, at the latest after `deadline_s`."""
        for connection in list(hub.connections):
            self.close(connection, CLOSE_GOING_AWAY, "the server is going away")
        try:
            async with asyncio.timeout(deadline_s):
                await hub.empty.wait()
        except TimeoutError:
            for connection in list(hub.connections):
                connection.abort()


class Sweeper:
    """Looks after connections that do nothing wrong and nothing at all."""

    def __init__(
        self,
        hub: Hub,
        closer: Closer,
        *,
        interval_s: float,
        heartbeat_s: float,
        slow_close_s: float,
        pull_within_ms: int,
    ) -> None:
        self._hub = hub
        self._closer = closer
        self._interval_s = interval_s
        self._heartbeat_s = heartbeat_s
        self._slow_close_s = slow_close_s
        self._pull_within_ms = pull_within_ms

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            for index, connection in enumerate(list(self._hub.connections)):
                if index % CONNECTIONS_PER_TURN == CONNECTIONS_PER_TURN - 1:
                    await asyncio.sleep(0)
                if not connection.closing:
                    self._look_at(connection, monotonic())

    def _look_at(self, connection: Connection, now: float) -> None:
        silent_s = now - connection.last_seen
        if silent_s > 2 * self._heartbeat_s:
            # Half-open: nobody is there to read a close frame.
            self._closer.close(connection, CLOSE_SLOW, "no sign of life")
        elif connection.expired():
            self._closer.close(connection, CLOSE_REVOKED, "the session has expired")
        elif connection.overrun:
            self._closer.close(connection, CLOSE_SLOW, "reads too slowly")
        elif connection.slow_since is not None:
            if not connection.catch_up(self._pull_within_ms) and now - connection.slow_since > self._slow_close_s:
                self._closer.close(connection, CLOSE_SLOW, "reads too slowly")
        elif silent_s > self._heartbeat_s and now - connection.last_ping > self._heartbeat_s:
            connection.ping(now)
