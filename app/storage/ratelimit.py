"""Token buckets shared by all processes, in Redis; each process has its own while Redis is away.

A bucket is one number: the time at which it is full again. Taking a token moves it on by one refill interval, and is allowed as
long as it stays within `capacity` intervals of now. That is the virtual scheduling algorithm of ITU-T I.371 (GCRA). A full bucket
needs no key, so a key expires at just that time.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from app.metrics import Metrics
from app.microbatch import MicroBatcher
from app.storage.redis import ERRORS, Redis, Script, run_scripts

log = structlog.get_logger(__name__)

# KEYS: the bucket. ARGV: capacity, refill per second, then how many tokens each taker wants. Answers microseconds, one per taker.
# Times are Redis's own: processes need not agree. A bucket never owes more than its capacity, not even after that clock went back.
TAKE = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local token = 1000000 / ARGV[2]
local capacity = ARGV[1] * token
local full_at = tonumber(redis.call('GET', KEYS[1]) or now) or now
full_at = math.min(math.max(full_at, now), now + capacity)
local waits = {}
local taken = false
for i = 3, #ARGV do
    local after = full_at + ARGV[i] * token
    local wait = after - capacity - now
    -- One microsecond is what rounding may cost.
    if wait <= 1 then
        full_at = after
        taken = true
        wait = 0
    end
    waits[i - 2] = math.ceil(wait)
end
if taken then
    redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PXAT', string.format('%.0f', math.ceil(full_at / 1000)))
end
return waits
"""
)


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """`n` tokens of the bucket `key`, all or none. Compared by identity: two equal takes are two takes."""

    key: str
    capacity: int
    refill_per_s: float
    n: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.n <= self.capacity or self.refill_per_s <= 0:
            raise ValueError(f"{self.n} tokens never fit into a bucket of {self.capacity}")


class LocalBuckets:
    """The same buckets in this process; beyond `buckets_max` the one unused for longest is forgotten, that is, full."""

    def __init__(self, *, buckets_max: int, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._buckets_max = buckets_max
        self._monotonic_s = monotonic_s
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, take: Take) -> float:
        """0.0 = granted, else seconds until it would be."""
        now = self._monotonic_s()
        after = max(self._full_at.get(take.key, now), now) + take.n / take.refill_per_s
        wait_s = after - take.capacity / take.refill_per_s - now
        granted = wait_s <= 1e-6
        if granted:
            self._full_at[take.key] = after
            if len(self._full_at) > self._buckets_max:
                self._full_at.popitem(last=False)
        # In use even when refused: who hammers a bucket must not get it forgotten.
        self._full_at.move_to_end(take.key)
        return 0.0 if granted else wait_s


class TokenBuckets:
    """Buckets in Redis under `RateLimit:{key}`. Never fails and never waits longer than `timeout_s` seconds."""

    def __init__(
        self,
        redis: Redis,
        local: LocalBuckets,
        metrics: Metrics,
        *,
        timeout_s: float,
        retry_s: float,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._local = local
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._monotonic_s = monotonic_s
        self._away = False
        self._next_try_s = -math.inf

    async def take(self, takes: Sequence[Take]) -> list[float]:
        """For each take in order: 0.0 = granted, else seconds until it would be. One pipeline, one call per bucket."""
        if not takes:
            return []
        if self._away:
            now = self._monotonic_s()
            if now < self._next_try_s:
                return self._take_local(takes)
            # One call looks whether Redis is back; the others meanwhile go on without.
            self._next_try_s = now + self._timeout_s + self._retry_s
        try:
            async with asyncio.timeout(self._timeout_s):
                waits = await self._take_shared(takes)
        except ERRORS as error:
            if not self._away:
                log.warning("rate_limits_became_local", reason=type(error).__name__)
            self._away = True
            self._next_try_s = self._monotonic_s() + self._retry_s
            return self._take_local(takes)
        if self._away:
            log.info("rate_limits_became_shared")
            self._away = False
        return waits

    async def _take_shared(self, takes: Sequence[Take]) -> list[float]:
        buckets: dict[tuple[str, int, float], list[int]] = {}
        for index, take in enumerate(takes):
            buckets.setdefault((take.key, take.capacity, take.refill_per_s), []).append(index)
        answers = await run_scripts(
            self._redis,
            [
                (TAKE, [f"RateLimit:{{{key}}}"], [capacity, repr(refill_per_s), *(takes[i].n for i in indexes)])
                for (key, capacity, refill_per_s), indexes in buckets.items()
            ],
        )
        waits = [0.0] * len(takes)
        for indexes, answer in zip(buckets.values(), answers, strict=True):
            for index, wait_us in zip(indexes, answer, strict=True):
                waits[index] = wait_us / 1_000_000
        return waits

    def _take_local(self, takes: Sequence[Take]) -> list[float]:
        self._metrics.limits_local.inc(len(takes))
        return [self._local.take(take) for take in takes]


class MinuteLimits:
    """Limits of so many a minute, all of which may come at once; concurrent single takes share a pipeline."""

    def __init__(
        self,
        buckets: TokenBuckets,
        *,
        send_per_minute: int,
        batch_max: int,
        linger_s: float,
        waiting_max: int,
    ) -> None:
        self._buckets = buckets
        self._send_per_minute = send_per_minute
        self._singles = MicroBatcher[Take, float](
            self._take_singles, max_batch=batch_max, linger_s=linger_s, max_waiting=waiting_max
        )

    async def take_one(self, bucket: str, per_minute: int) -> float:
        """0.0 = granted, else seconds until it would be. Raises Busy when `waiting_max` takes wait already."""
        return await self._singles.get(Take(bucket, per_minute, per_minute / 60))

    async def take_sends(self, user_ids: Sequence[int]) -> list[float]:
        """One send for each entry: 0.0 = granted, else seconds until it would be. Never fails."""
        n = self._send_per_minute
        return await self._buckets.take([Take(f"send:user:{user_id}", n, n / 60) for user_id in user_ids])

    async def _take_singles(self, takes: Sequence[Take]) -> Mapping[Take, float]:
        return dict(zip(takes, await self._buckets.take(takes), strict=True))
