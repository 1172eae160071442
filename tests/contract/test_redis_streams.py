"""What the log in Redis Streams promises beyond the contract of brokers: a log that was emptied, leases, bounds."""

import asyncio
import threading
import time

import pytest

from app.brokers.base import Subscription
from app.brokers.redis_streams import RedisStreamsBroker
from app.errors import Busy
from app.lifecycle import Readiness, Supervisor
from app.storage.redis import Redis, connect
from tests.contract.logs import MAX_RECORDS, PARTITIONS, Connect, Ownership, positions, until, values
from tests.contract.streams import fetching, until_read

LEASE_S, RENEW_S = 1.0, 0.1


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
    await redis.execute_command("XSETID", "Log:{0}", f"{hour_ahead}-0")
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
    assert LEASE_S / 2 < time.monotonic() - since < 2 * LEASE_S + 10
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
    await redis.execute_command("XSETID", "Log:{0}", f"{hour_ahead}-{(1 << 19) - 2}")
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
