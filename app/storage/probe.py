"""Asks both stores for a sign of life, so that `/readyz` knows of an outage before the next message does."""

import asyncio

import asyncpg

from app.errors import Busy
from app.lifecycle import Readiness
from app.storage.postgres import Postgres
from app.storage.redis import ERRORS, Redis

FULL = "PostgreSQL has no connection left; raise its max_connections, or lower postgres.pool_max"


class StoreProbe:
    """Runs beside the work; a store that does not answer within `timeout_s` makes the process not ready."""

    def __init__(
        self, postgres: Postgres, redis: Redis, readiness: Readiness, *, interval_s: float, timeout_s: float
    ) -> None:
        self._postgres = postgres
        self._redis = redis
        self._readiness = readiness
        self._interval_s = interval_s
        self._timeout_s = timeout_s

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            await asyncio.gather(self._probe_postgres(), self._probe_redis())
            await asyncio.sleep(self._interval_s)

    async def _probe_postgres(self) -> None:
        # A timer beside the question: giving up a question waits for the server too, which may be frozen.
        silent = ("postgres", "PostgreSQL does not answer")
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._readiness.fail, *silent)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._postgres.fetchval("SELECT 1")
        except (Busy, TimeoutError) as error:
            full = isinstance(error.__cause__, asyncpg.TooManyConnectionsError)
            self._readiness.fail("postgres", FULL if full else silent[1])
        else:
            self._readiness.clear("postgres")
        finally:
            timer.cancel()

    async def _probe_redis(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._redis.ping()
        except ERRORS:
            self._readiness.fail("redis", "Redis does not answer")
        else:
            self._readiness.clear("redis")
