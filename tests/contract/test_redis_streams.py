"""What the log in Redis Streams promises beyond the contract of brokers: its own outages, its leases, its bounds."""

import asyncio
import itertools
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from app.brokers.base import Broker, Record, Subscription
from app.brokers.redis_streams import RedisStreamsBroker
from app.errors import AppError, Busy, Internal
from app.lifecycle import Readiness, Supervisor
from app.metrics import Metrics
from app.modules.messages.models import Draft, from_envelope
from app.modules.messages.producer import MessageProducer
from app.protocol.magpie_pb2 import Answer
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.redis import Redis, connect
from tests.contract.logs import MAX_RECORDS, PARTITIONS, Connect, Ownership, positions, redis_streams, values

LEASE_S, RENEW_S = 1.0, 0.1
FAST = {"append_timeout_s": 0.6, "timeout_s": 0.4}


@pytest.fixture
async def connect_streams(redis_url: str) -> AsyncIterator[Connect]:
    async with redis_streams(redis_url) as connect_:
        yield connect_


@pytest.fixture
async def connect_breakable(breakable_valkey: ValkeyProcess) -> AsyncIterator[Connect]:
    async with redis_streams(breakable_valkey.url, **FAST) as connect_:
        yield connect_


class Process:
    """A consumer process that can be killed: no further word of it, and its connections close."""

    def __init__(self, url: str) -> None:
        self.ownership = Ownership()
        self.supervisor = Supervisor(pytest.fail)
        self.redis = connect(url, pool_max=4, connect_timeout_s=2, command_timeout_s=2)
        limits = {"append_timeout_s": 5, "lease_s": LEASE_S, "renew_s": RENEW_S, "timeout_s": 2}
        self.broker = RedisStreamsBroker(
            self.redis, self.supervisor, Readiness(), PARTITIONS, "test", max_records=MAX_RECORDS, **limits
        )

    async def subscribe(self) -> Subscription:
        self.subscription = await self.broker.subscribe(self.ownership)
        return self.subscription

    async def kill(self) -> None:
        await self.supervisor.stop(5)
        await self.subscription._line.close()  # type: ignore[attr-defined]  # as the kernel does it
        await self.redis.aclose()


async def take(subscription: Subscription, count: int) -> list[Record]:
    """Exactly `count` records; Busy is waited out."""
    records: list[Record] = []
    async with asyncio.timeout(20):
        while len(records) < count:
            try:
                records += await subscription.fetch(500, 0)
            except Busy:
                await asyncio.sleep(0.02)
    assert len(records) == count
    return records


async def until_read(subscription: Subscription, *expected: bytes) -> list[Record]:
    """Exactly these values, in any order of partitions."""
    records = await take(subscription, len(expected))
    assert sorted(values(records)) == sorted(expected)
    return records


async def waiting_in(broker: Broker) -> int:
    """How much the log holds; none while it is away."""
    try:
        return sum((await broker.backlog()).values())
    except Busy:
        await asyncio.sleep(0.01)
        return 0


async def until_appended(broker: Broker, partition: int, value: bytes) -> None:
    """Append, however often that takes."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await broker.append(partition, [value])
            except AppError:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def fetching(subscription: Subscription) -> AsyncIterator[list[Record]]:
    """Fetch and commit in the background; gives what came."""
    came: list[Record] = []

    async def fetch() -> None:
        while True:
            try:
                records = await subscription.fetch(500, 0)
                came.extend(records)
                await subscription.commit(positions(records))
            except Busy:
                await asyncio.sleep(0.02)

    task = asyncio.ensure_future(fetch())
    try:
        yield came
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(condition: Callable[[], bool], within_s: float = 20) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_log_that_was_emptied_begins_anew_for_its_readers(connect_streams: Connect, redis: Redis) -> None:
    ownerships = [Ownership(), Ownership()]
    subscriptions = [await (await connect_streams()).subscribe(ownership) for ownership in ownerships]
    broker = await connect_streams()
    async with fetching(subscriptions[0]) as first, fetching(subscriptions[1]) as second:
        await until(lambda: all(len(ownership.owned) == PARTITIONS // 2 for ownership in ownerships))
        for round_ in range(3):
            await broker.append(round_, [b"%d" % round_])
            await until(lambda: len(first) + len(second) == round_ + 1)  # noqa: B023 - called here and now
            for ownership in ownerships:
                ownership.fresh.clear()
            await redis.flushall()
            await until(lambda: ownerships[0].fresh | ownerships[1].fresh == set(range(PARTITIONS)))
            await until(lambda: all(len(ownership.owned) == PARTITIONS // 2 for ownership in ownerships))
    assert sorted(values(first + second)) == [b"0", b"1", b"2"]
    for subscription in subscriptions:
        await subscription.close()


async def test_records_of_an_emptied_log_are_read_though_its_clock_went_back(
    connect_streams: Connect, redis: Redis
) -> None:
    broker, ownership = await connect_streams(), Ownership()
    hour_ahead = int(time.time() * 1000) + 3_600_000
    await broker.append(0, [b"1"])
    await redis.xtrim("Log:{0}", maxlen=0)
    await redis.execute_command("XSETID", "Log:{0}", f"{hour_ahead}-0")  # type: ignore[no-untyped-call]  # redis-py
    await broker.append(0, [b"2"])
    subscription = await broker.subscribe(ownership)
    [record] = await until_read(subscription, b"2")
    assert record.appended_ms == hour_ahead
    await subscription.commit(positions([record]))
    await redis.flushall()
    ownership.fresh.clear()
    await broker.append(0, [b"3"])
    [later] = await until_read(subscription, b"3")
    assert later.offset < record.offset
    assert ownership.fresh == set(range(PARTITIONS))
    await subscription.close()


async def test_a_new_log_is_noticed_before_its_first_record_is_handed_out(
    connect_streams: Connect, redis: Redis
) -> None:
    broker, ownership = await connect_streams(), Ownership()
    subscription = await broker.subscribe(ownership)
    await broker.append(0, [b"1"])
    await subscription.commit(positions(await until_read(subscription, b"1")))
    ownership.fresh.clear()
    # Between two looks at the owners only the records themselves can tell.
    await redis.delete("Log:{0}")
    await broker.append(0, [b"2"])
    await until_read(subscription, b"2")
    assert ownership.fresh == {0}
    await subscription.close()


async def test_a_position_of_the_log_before_is_not_committed_to_the_new_one(
    connect_streams: Connect, redis: Redis
) -> None:
    broker, ownership = await connect_streams(), Ownership()
    subscription = await broker.subscribe(ownership)
    await broker.append(0, [b"1"])
    records = await until_read(subscription, b"1")
    hour_ahead = (int(time.time() * 1000) + 3_600_000) << 20
    await redis.delete("Log:{0}")
    await broker.append(0, [b"2"])
    await subscription.commit({0: records[0].offset + hour_ahead})
    assert (await broker.backlog())[0] == 1
    await until_read(subscription, b"2")
    await subscription.close()


async def test_a_restart_with_nothing_left_is_gone_through(
    connect_breakable: Connect, breakable_valkey: ValkeyProcess
) -> None:
    broker, ownership = await connect_breakable(), Ownership()
    subscription = await broker.subscribe(ownership)
    await broker.append(1, [b"1"])
    await until_read(subscription, b"1")
    await breakable_valkey.stop()
    with pytest.raises(Busy):
        await subscription.fetch(10, 0)
    with pytest.raises(Busy):
        await broker.backlog()
    with pytest.raises(Busy):
        await broker.subscribe(Ownership())
    ownership.fresh.clear()
    await breakable_valkey.start()
    await until_appended(broker, 1, b"2")
    await until_read(subscription, b"2")
    assert ownership.fresh == set(range(PARTITIONS))
    assert ownership.owned == set(range(PARTITIONS))
    await subscription.close()


async def test_sends_that_a_restart_lost_are_appended_again_before_later_ones(
    connect_breakable: Connect, breakable_valkey: ValkeyProcess
) -> None:
    class Anyone:
        """Lets everybody send, and takes every failure."""

        unacked = 0

        async def take_sends(self, user_ids: Sequence[int]) -> list[float]:
            return [0.0] * len(user_ids)

        def on_answer(self, request_id: int, answer: Answer) -> None:
            raise AssertionError

        def on_failure(self, request_id: int, error: AppError) -> None:
            assert isinstance(error, Busy | Internal)

    broker, anyone = await connect_breakable(), Anyone()
    bounds: dict[str, Any] = {
        "per_connection": 900,
        "per_partition": 900,
        "total": 900,
        "batch_max": 900,
        "linger_ms": 0,
    }
    producer = MessageProducer(broker, anyone, Metrics(), node_id="n", boot_id="b", send_timeout_s=60, **bounds)
    running = asyncio.ensure_future(producer.run())
    numbers = itertools.count(1)

    async def submit_until(in_log: int) -> None:
        async with asyncio.timeout(20):
            while (await waiting_in(broker)) < in_log:
                number = next(numbers)
                producer.submit(Draft(1, 2, UUID(int=number), "text", "x", b"h" * 32), anyone, number)

    await submit_until(5)
    before = await waiting_in(broker)
    await breakable_valkey.stop()
    restarting = asyncio.ensure_future(breakable_valkey.start())
    await submit_until(before + 5)
    await restarting
    running.cancel()
    await asyncio.wait({running})
    subscription = await broker.subscribe(Ownership())
    records = await take(subscription, await waiting_in(broker))
    read = [from_envelope(record.value).key[2].int for record in records]
    assert read[:before] == list(range(1, before + 1))
    assert read == sorted(read)
    await subscription.close()


async def test_an_append_to_a_redis_that_is_gone_is_refused(
    connect_breakable: Connect, breakable_valkey: ValkeyProcess
) -> None:
    broker = await connect_breakable()
    await broker.append(0, [b"1"])
    await breakable_valkey.stop()
    for _ in range(3):
        with pytest.raises(Busy) as refused:
            await broker.append(0, [b"2"])
        assert (refused.value.outcome, refused.value.retry_after_ms) == ("none", 1000)
    await breakable_valkey.start()
    await until_appended(broker, 0, b"3")
    assert (await broker.backlog())[0] == 1


async def test_a_frozen_redis_ends_appends_in_time_with_an_unknown_outcome(
    connect_breakable: Connect, breakable_valkey: ValkeyProcess
) -> None:
    broker = await connect_breakable()
    subscription = await broker.subscribe(Ownership())
    await broker.append(0, [b"1"])
    first = await until_read(subscription, b"1")
    process = breakable_valkey._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        since = time.monotonic()
        with pytest.raises(Internal) as unknown:
            await broker.append(0, [b"2"])
        assert unknown.value.outcome == "unknown"
        with pytest.raises(Busy) as refused:
            await broker.append(0, [b"3"])
        assert refused.value.outcome == "none"
        assert time.monotonic() - since < FAST["append_timeout_s"] + 0.3
        with pytest.raises(Busy):
            await subscription.fetch(10, 0)
        with pytest.raises(Busy):
            await subscription.commit(positions(first))
    finally:
        process.send_signal(signal.SIGCONT)
    await until_appended(broker, 0, b"4")
    # What was under way when Redis froze came before what was sent later; `1` may come again, after the lease was lost.
    came: list[bytes] = []
    async with asyncio.timeout(20):
        while b"4" not in came:
            try:
                came += values(await subscription.fetch(500, 0))
            except Busy:
                await asyncio.sleep(0.02)
    assert came[-2:] == [b"2", b"4"]
    assert b"3" not in came
    await subscription.close()


async def test_the_partitions_of_a_killed_reader_go_to_others_within_two_leases(redis_url: str) -> None:
    killed, heir = Process(redis_url), Process(redis_url)
    await killed.broker.start()
    await heir.broker.start()
    subscription = await killed.subscribe()
    await killed.broker.append(2, [b"1"])
    await until_read(subscription, b"1")
    await killed.kill()
    since = time.monotonic()
    inherited = await heir.subscribe()
    await until_read(inherited, b"1")
    assert LEASE_S / 2 < time.monotonic() - since < 2 * LEASE_S
    assert not heir.ownership.fresh & {2}
    await inherited.close()
    await heir.kill()


async def test_a_reader_that_slept_has_lost_its_partitions_and_commits_nothing(redis_url: str) -> None:
    sleeps, wakes, read = threading.Event(), threading.Event(), asyncio.Event()
    loop, sleeper = asyncio.get_running_loop(), Ownership()

    async def sleep_through_the_lease() -> None:
        process = Process(redis_url)
        process.ownership = sleeper
        await process.broker.start()
        subscription = await process.subscribe()
        records = await until_read(subscription, b"1", b"2")
        loop.call_soon_threadsafe(read.set)
        sleeps.set()
        wakes.wait(20)  # the whole event loop: not even renewals
        await subscription.commit(positions(records))
        await subscription.close()
        await process.kill()

    other = Process(redis_url)
    await other.broker.start()
    await other.broker.append(0, [b"1", b"2"])
    sleeping = asyncio.ensure_future(asyncio.to_thread(lambda: asyncio.run(sleep_through_the_lease())))
    try:
        await read.wait()
        subscription = await other.subscribe()
        [first, _] = await until_read(subscription, b"1", b"2")
        await subscription.commit({0: first.offset})
    finally:
        wakes.set()
    await sleeping
    assert sleeper.owned == set()
    assert (await other.broker.backlog())[0] == 1
    assert other.ownership.owned == set(range(PARTITIONS))
    await subscription.close()
    await other.kill()


async def test_the_bound_holds_however_many_append_at_once(connect_streams: Connect) -> None:
    brokers = [await connect_streams() for _ in range(3)]
    results = await asyncio.gather(
        *(broker.append(0, [b"x", b"y"]) for _ in range(MAX_RECORDS) for broker in brokers), return_exceptions=True
    )
    assert results.count(None) == MAX_RECORDS // 2
    assert all(isinstance(result, Busy) and result.outcome == "none" for result in results if result is not None)
    assert (await brokers[0].backlog())[0] == MAX_RECORDS


async def test_what_was_read_takes_no_memory(connect_streams: Connect, redis: Redis) -> None:
    broker = await connect_streams()
    subscription = await broker.subscribe(Ownership())
    for _ in range(30):
        await broker.append(0, [b"x" * 2000] * MAX_RECORDS)
        records = await until_read(subscription, *[b"x" * 2000] * MAX_RECORDS)
        await subscription.commit(positions(records))
    assert (await redis.memory_usage("Log:{0}") or 0) < 10_000
    assert len(await redis.keys("*")) == 2 * PARTITIONS + 1
    await subscription.close()
    assert len(await redis.keys("*")) == PARTITIONS


async def test_scripts_that_redis_forgot_are_loaded_again(connect_streams: Connect, redis: Redis) -> None:
    broker = await connect_streams()
    subscription = await broker.subscribe(Ownership())
    for number in range(3):
        await redis.script_flush()
        await broker.append(0, [b"%d" % number])
        await redis.script_flush()
        records = await until_read(subscription, b"%d" % number)
        await redis.script_flush()
        await subscription.commit(positions(records))
    assert (await broker.backlog())[0] == 0
    await subscription.close()


async def test_offsets_rise_though_the_clock_of_redis_stands_still(connect_streams: Connect, redis: Redis) -> None:
    broker = await connect_streams()
    subscription = await broker.subscribe(Ownership())
    await broker.append(0, [b"0"])
    hour_ahead = int(time.time() * 1000) + 3_600_000
    await redis.execute_command("XSETID", "Log:{0}", f"{hour_ahead}-{(1 << 19) - 2}")  # type: ignore[no-untyped-call]  # redis-py
    for number in range(1, 5):
        await broker.append(0, [b"%d" % number])
    records = await until_read(subscription, b"0", b"1", b"2", b"3", b"4")
    assert values(sorted(records, key=lambda record: record.offset)) == values(records)
    assert records[-1].appended_ms == hour_ahead + 1
    await subscription.close()


async def test_an_idle_reader_asks_for_nothing_but_its_lease(connect_streams: Connect, redis: Redis) -> None:
    subscription = await (await connect_streams()).subscribe(Ownership())
    async with fetching(subscription):
        await asyncio.sleep(10 * RENEW_S)  # the time is the point, nothing is waited for
        before = (await redis.info("commandstats"))["cmdstat_xread"]["calls"]
        await asyncio.sleep(10 * RENEW_S)
        after = (await redis.info("commandstats"))["cmdstat_xread"]["calls"]
    assert after - before <= 1
    await subscription.close()
