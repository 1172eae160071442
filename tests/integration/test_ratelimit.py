"""Token buckets in Valkey are shared by all processes; without it each process decides alone, and nothing fails."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis as RedisClient
from structlog.testing import capture_logs

from app.metrics import Metrics
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.ratelimit import LocalBuckets, MinuteLimits, Take, TokenBuckets
from app.storage.redis import Redis, connect

DEADLINE_S = 20.0
SLOW = 0.001
"""Tokens a second: none comes back while a test runs."""


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


class Process:
    """One process of several, as far as limits are concerned."""

    def __init__(self, redis: Redis, *, timeout_s: float = 10.0) -> None:
        self.metrics = Metrics()
        self.clock = Clock()
        local = LocalBuckets(buckets_max=100, monotonic_s=self.clock)
        self.buckets = TokenBuckets(
            redis, local, self.metrics, timeout_s=timeout_s, retry_s=1.0, monotonic_s=self.clock
        )
        self.limits = MinuteLimits(self.buckets, send_per_minute=60, batch_max=100, linger_s=0, waiting_max=1000)

    @property
    def decided_alone(self) -> float:
        return self.metrics.registry.get_sample_value("im_limits_local_total") or 0.0


@pytest.fixture
def process(redis: Redis) -> Process:
    return Process(redis)


async def script_calls(redis: RedisClient) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


async def test_the_burst_is_the_capacity_and_all_processes_share_it(redis: Redis) -> None:
    one, two = Process(redis), Process(redis)
    take = Take("a", 5, SLOW)
    assert await one.buckets.take([take] * 3) == [0.0] * 3
    waits = await two.buckets.take([take] * 3)
    assert waits[:2] == [0.0, 0.0] and waits[2] == pytest.approx(1000, rel=0.01)
    assert await two.buckets.take([Take("b", 5, SLOW)]) == [0.0]
    assert one.decided_alone == two.decided_alone == 0


async def test_tokens_come_back_at_the_refill_rate(process: Process) -> None:
    loop = asyncio.get_running_loop()
    take = Take("a", 20, 100.0)
    since = loop.time()
    assert await process.buckets.take([take] * 20) == [0.0] * 20
    granted = 0
    async with asyncio.timeout(DEADLINE_S):
        while granted < 30:
            granted += (await process.buckets.take([take])) == [0.0]
    assert loop.time() - since >= 0.29


async def test_several_tokens_are_granted_together_or_not_at_all(process: Process) -> None:
    waits = await process.buckets.take([Take("a", 5, SLOW, 4), Take("a", 5, SLOW, 2), Take("a", 5, SLOW, 1)])
    assert waits == [0.0, pytest.approx(1000, rel=0.01), 0.0]


async def test_a_key_lives_until_its_bucket_is_full(process: Process, redis: Redis) -> None:
    await process.buckets.take([Take("a", 100, 0.1, 5), Take("b", 100, 1000.0, 5)])
    assert await redis.pttl("RateLimit:{a}") == pytest.approx(50_000, rel=0.05)
    async with asyncio.timeout(DEADLINE_S):
        while await redis.exists("RateLimit:{b}"):
            await asyncio.sleep(0.005)


async def test_a_clock_of_redis_gone_back_costs_one_capacity_at_most(process: Process, redis: Redis) -> None:
    seconds, _ = await redis.time()
    await redis.set("RateLimit:{a}", (seconds + 86_400) * 1_000_000)
    assert await process.buckets.take([Take("a", 60, 1.0)]) == [pytest.approx(1.0, abs=0.1)]


async def test_a_micro_batch_costs_one_call_per_user(process: Process, redis: Redis) -> None:
    await process.limits.take_sends([0])
    before = await script_calls(redis)
    waits = await process.limits.take_sends([1] * 70 + [2] * 10 + [1])
    assert await script_calls(redis) - before == 2
    assert waits[:60] == [0.0] * 60 and waits[70:80] == [0.0] * 10
    assert all(wait > 0 for wait in (*waits[60:70], waits[80]))


async def test_concurrent_single_takes_share_a_pipeline(process: Process, redis: Redis) -> None:
    await process.limits.take_one("api:user:0", 100)
    before = await script_calls(redis)
    waits = await asyncio.gather(*(process.limits.take_one("login:ip:::1", 10) for _ in range(25)))
    assert await script_calls(redis) - before == 1
    assert sum(wait == 0 for wait in waits) == 10
    assert max(waits) == pytest.approx(6, rel=0.1)


async def test_an_emptied_redis_without_the_script_is_no_outage(process: Process, redis: Redis) -> None:
    assert await process.buckets.take([Take("a", 1, SLOW)] * 2) != [0.0, 0.0]
    await redis.flushall()
    await redis.script_flush()
    assert await process.buckets.take([Take("a", 1, SLOW)]) == [0.0]
    assert process.decided_alone == 0


async def test_a_key_of_another_type_does_not_fail_a_request(process: Process, redis: Redis) -> None:
    await redis.lpush("RateLimit:{a}", "x")
    assert await process.buckets.take([Take("a", 1, SLOW)]) == [0.0]
    assert process.decided_alone == 1


@pytest.fixture
async def broken(breakable_valkey: ValkeyProcess) -> AsyncIterator[Redis]:
    client = connect(breakable_valkey.url, pool_max=4, connect_timeout_s=5, command_timeout_s=5)
    yield client
    await client.aclose()


async def test_while_redis_is_away_the_process_decides_alone_and_says_so_once(
    breakable_valkey: ValkeyProcess, broken: Redis
) -> None:
    process = Process(broken)
    take = Take("a", 5, SLOW)
    with capture_logs() as logs:
        assert await process.buckets.take([take] * 3) == [0.0] * 3
        await breakable_valkey.stop()
        for _ in range(5):
            # Each finds Redis away anew.
            process.clock.s += 100
            assert await process.buckets.take([take]) == [0.0]
        assert (await process.buckets.take([take]))[0] == pytest.approx(600, rel=0.01)
        assert process.decided_alone == 6

        await breakable_valkey.start()
        assert (await process.buckets.take([take]))[0] > 0, "asked before its time"
        process.clock.s += 1.0
        assert await process.buckets.take([take]) == [0.0]
        assert process.decided_alone == 7
        assert await broken.exists("RateLimit:{a}")
    assert [entry["event"] for entry in logs] == ["rate_limits_became_local", "rate_limits_became_shared"]


async def test_a_redis_that_hangs_costs_one_short_wait_and_gives_no_wrong_answers_after(
    breakable_valkey: ValkeyProcess, broken: Redis
) -> None:
    process = Process(broken, timeout_s=0.5)
    loop = asyncio.get_running_loop()
    assert await process.buckets.take([Take("a", 5, SLOW)]) == [0.0]
    assert breakable_valkey._process is not None
    breakable_valkey._process.send_signal(signal.SIGSTOP)
    try:
        since = loop.time()
        for _ in range(50):
            await process.buckets.take([Take("b", 1, SLOW)])
        assert loop.time() - since < 5.0, "waited more than once"
        assert process.decided_alone == 50
    finally:
        breakable_valkey._process.send_signal(signal.SIGCONT)
    await broken.ping()
    process.clock.s += 1.2
    # A late answer to what was given up must not be taken for the answer to this.
    waits = await process.buckets.take([Take("c", 1, SLOW), Take("c", 1, SLOW), Take("d", 1, SLOW)])
    assert waits == [0.0, pytest.approx(1000, rel=0.01), 0.0]
    assert process.decided_alone == 50


async def test_while_one_call_looks_whether_redis_is_back_the_others_do_not_wait(
    breakable_valkey: ValkeyProcess, broken: Redis
) -> None:
    process = Process(broken, timeout_s=0.5)
    take = Take("a", 100, SLOW)
    assert await process.buckets.take([take]) == [0.0]
    assert breakable_valkey._process is not None
    breakable_valkey._process.send_signal(signal.SIGSTOP)
    try:
        await process.buckets.take([take])
        process.clock.s += 1.0
        look = asyncio.ensure_future(process.buckets.take([take]))
        await asyncio.sleep(0)
        assert await process.buckets.take([take] * 20) == [0.0] * 20
        assert not look.done()
        assert await look == [0.0]
    finally:
        breakable_valkey._process.send_signal(signal.SIGCONT)
    assert process.decided_alone == 22
