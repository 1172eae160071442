"""The contract of app/brokers/base.py, for every adapter: one reader."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence

import pytest

from app.brokers.base import Broker, Record, Subscription
from app.brokers.memory import MemoryBroker
from app.errors import AppError, Busy
from tests.contract.logs import MAX_RECORDS, PARTITIONS, Connect, Ownership, positions, values


@pytest.fixture
async def broker(connect: Connect) -> Broker:
    return await connect()


@pytest.fixture
def ownership() -> Ownership:
    return Ownership()


@pytest.fixture
async def subscription(broker: Broker, ownership: Ownership) -> AsyncIterator[Subscription]:
    subscription = await broker.subscribe(ownership)
    yield subscription
    await subscription.close()


async def take(subscription: Subscription, count: int, at_once: int = 500) -> list[Record]:
    """Exactly `count` records, however many fetches that takes."""
    records: list[Record] = []
    async with asyncio.timeout(20):
        while len(records) < count:
            records += await subscription.fetch(at_once)
    assert len(records) == count
    return records


async def test_order_is_kept_within_each_partition(broker: Broker, subscription: Subscription) -> None:
    for number in range(20):
        await broker.append(number % 2, [b"%d-a" % number, b"%d-b" % number])
    records = await take(subscription, 40, at_once=7)
    for partition in (0, 1):
        expected = [b"%d-%s" % (n, part) for n in range(partition, 20, 2) for part in (b"a", b"b")]
        assert values(records, partition) == expected
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == sorted(set(offsets))


async def test_appends_made_at_once_keep_the_order_in_which_they_began(
    broker: Broker, subscription: Subscription
) -> None:
    appends = [broker.append(number % PARTITIONS, [b"%d" % number]) for number in range(60)]
    await asyncio.gather(*appends)
    records = await take(subscription, 60)
    for partition in range(PARTITIONS):
        assert values(records, partition) == [b"%d" % number for number in range(partition, 60, PARTITIONS)]


async def test_a_record_tells_when_it_was_appended(broker: Broker, subscription: Subscription) -> None:
    before = int(time.time() * 1000)
    await broker.append(0, [b"x"])
    [record] = await take(subscription, 1)
    assert before - 1 <= record.appended_ms <= time.time() * 1000 + 1


async def test_large_and_binary_records_come_through(broker: Broker, subscription: Subscription) -> None:
    large = [bytes(range(256)) * 100, b"", b"\0" * 9000]
    await broker.append(1, large)
    assert values(await take(subscription, 3)) == large


async def test_fetch_waits_for_the_first_record(broker: Broker, subscription: Subscription) -> None:
    fetch = asyncio.ensure_future(subscription.fetch(10))
    done, _ = await asyncio.wait([fetch], timeout=0.05)
    assert not done
    await broker.append(2, [b"x"])
    async with asyncio.timeout(20):
        assert values(await fetch) == [b"x"]


async def test_a_cancelled_fetch_loses_nothing(broker: Broker, subscription: Subscription) -> None:
    taken: list[Record] = []
    for number in range(30):
        await broker.append(number % PARTITIONS, [b"%d" % number])
        fetch = asyncio.ensure_future(subscription.fetch(10))
        await asyncio.sleep(0.0005 * (number % 7))
        fetch.cancel()
        try:
            taken += await fetch
        except asyncio.CancelledError:
            continue
    taken += await take(subscription, 30 - len(taken))
    assert sorted(values(taken), key=int) == [b"%d" % number for number in range(30)]


async def test_no_partition_starves_the_others(broker: Broker, subscription: Subscription) -> None:
    await broker.append(0, [b"busy"] * 50)
    await broker.append(1, [b"quiet"])
    first = await subscription.fetch(10)
    second = await subscription.fetch(10)
    assert b"quiet" in values(first + second)


async def test_what_is_not_committed_waits_for_the_next_subscription(broker: Broker) -> None:
    await broker.append(0, [b"1", b"2"])
    first = await broker.subscribe(Ownership())
    records = await take(first, 2)
    await first.commit({0: records[0].offset})
    await first.close()
    second = await broker.subscribe(Ownership())
    assert values(await take(second, 1), 0) == [b"2"]
    await second.close()


async def test_who_connects_anew_goes_on_where_the_process_before_stopped(connect: Connect) -> None:
    before = await connect()
    await before.append(0, [b"1", b"2"])
    first = await before.subscribe(Ownership())
    records = await take(first, 2)
    await first.commit({0: records[0].offset})
    await first.close()
    await before.stop()
    after = await connect()
    await after.append(0, [b"3"])
    second = await after.subscribe(Ownership())
    again = await take(second, 2)
    assert values(again, 0) == [b"2", b"3"]
    assert again[0] == records[1]
    assert again[1].offset > again[0].offset
    await second.close()


async def test_who_stops_finishes_its_batch_and_leaves_the_rest(connect: Connect) -> None:
    broker = await connect()
    stopping = await broker.subscribe(Ownership())
    for partition in range(PARTITIONS):
        await broker.append(partition, [b"in work"])
    in_work = await take(stopping, PARTITIONS)
    for partition in range(PARTITIONS):
        await broker.append(partition, [b"left"])
    # Of the next batch nothing is done, and a third one is waited for.
    await stopping.fetch(10)
    fetch = asyncio.ensure_future(stopping.fetch(10))
    await asyncio.wait({fetch}, timeout=0.05)
    fetch.cancel()
    await asyncio.wait({fetch})
    await stopping.commit(positions(in_work))
    await stopping.close()
    await broker.stop()
    successor = await (await connect()).subscribe(Ownership())
    assert values(await take(successor, PARTITIONS)) == [b"left"] * PARTITIONS
    await successor.close()


async def test_whoever_appends_while_it_stops_is_told_what_became_of_that(connect: Connect) -> None:
    broker = await connect()
    await broker.append(0, [b"kept"])
    appends = {b"%d" % number: broker.append(number % PARTITIONS, [b"%d" % number]) for number in range(40)}
    await asyncio.sleep(0)  # the first of them are under way now
    async with asyncio.timeout(20):
        await broker.stop()
        await asyncio.wait(appends.values())
    errors = {value: append.exception() for value, append in appends.items()}
    kept = {b"kept"} | {value for value, error in errors.items() if error is None}
    refused = {value for value, error in errors.items() if isinstance(error, AppError) and error.outcome == "none"}
    successor = await (await connect()).subscribe(Ownership())
    read: set[bytes] = set()
    async with asyncio.timeout(20):
        while not kept <= read:
            read |= set(values(await successor.fetch(500)))
    await successor.close()
    assert not refused & read


async def test_the_next_batch_may_be_fetched_before_this_one_is_committed(
    broker: Broker, subscription: Subscription
) -> None:
    for partition in (0, 1):
        await broker.append(partition, [b"1", b"2"])
    first = await take(subscription, 4)
    fetch = asyncio.ensure_future(subscription.fetch(10))
    await asyncio.sleep(0.01)
    commit = asyncio.ensure_future(subscription.commit(positions(first)))
    await broker.append(0, [b"3"])
    async with asyncio.timeout(20):
        second = await fetch
        await commit
    assert values(second) == [b"3"]
    assert {p: n for p, n in (await broker.backlog()).items() if n} == {0: 1}
    await subscription.commit(positions(second))
    assert not any((await broker.backlog()).values())


async def test_the_backlog_is_what_is_not_committed(broker: Broker, subscription: Subscription) -> None:
    await broker.append(0, [b"1", b"2", b"3"])
    await broker.append(3, [b"4"])
    records = await take(subscription, 4)
    assert {p: n for p, n in (await broker.backlog()).items() if n} == {0: 3, 3: 1}
    await subscription.commit({0: records[values(records).index(b"2")].offset})
    assert {p: n for p, n in (await broker.backlog()).items() if n} == {0: 1, 3: 1}
    await subscription.commit(positions(records))
    assert not any((await broker.backlog()).values())


async def test_ownership_is_told_before_records_and_after_closing(broker: Broker, ownership: Ownership) -> None:
    subscription = await broker.subscribe(ownership)
    await broker.append(2, [b"x"])
    await take(subscription, 1)
    assert ownership.owned == set(range(PARTITIONS))
    assert ownership.fresh == set(range(PARTITIONS)), "nobody read this log before"
    await subscription.close()
    assert ownership.owned == set()


async def test_a_log_that_was_read_before_is_not_fresh(broker: Broker, ownership: Ownership) -> None:
    first = await broker.subscribe(Ownership())
    for partition in range(PARTITIONS):
        await broker.append(partition, [b"x"])
    await first.commit(positions(await take(first, PARTITIONS)))
    await first.close()
    second = await broker.subscribe(ownership)
    await broker.append(0, [b"y"])
    await take(second, 1)
    assert ownership.owned == set(range(PARTITIONS))
    assert not ownership.fresh
    await second.close()


async def test_a_log_begins_only_once(broker: Broker, ownership: Ownership) -> None:
    first = await broker.subscribe(Ownership())
    await broker.append(0, [b"x"])
    assert values(await take(first, 1)) == [b"x"]
    await first.close()
    second = await broker.subscribe(ownership)
    assert values(await take(second, 1)) == [b"x"]
    assert not ownership.fresh, "what the first owner decided would be decided again"
    await second.close()


def test_partition_of_a_group_is_the_crc32_of_its_decimal_id() -> None:
    # Fixed values: another implementation, or another version, must put a group into the same partition.
    broker = MemoryBroker(16, 1)
    assert [broker.partition_of(group) for group in (1, 42, 9223372036854775807)] == [7, 8, 14]


async def test_who_could_not_take_its_partitions_tries_again(broker: Broker) -> None:
    class FailsOnce(Ownership):
        tried = False

        async def on_assigned(self, partitions: Sequence[int], fresh: Collection[int]) -> None:
            if not self.tried:
                self.tried = True
                raise Busy("the store is away", retry_after_ms=1)
            await super().on_assigned(partitions, fresh)

    listener = FailsOnce()
    await broker.append(1, [b"x"])
    subscription = await broker.subscribe(listener)
    with pytest.raises(Busy):
        await subscription.fetch(10)
    assert not listener.owned
    assert values(await take(subscription, 1), 1) == [b"x"]
    await subscription.close()


async def test_a_full_log_refuses_whole_appends_and_says_when_to_retry(
    broker: Broker, subscription: Subscription
) -> None:
    if broker.name == "kafka":
        pytest.skip(
            "Kafka's log is bounded by its retention; un-acked sends are bounded by the producer in front of it"
        )
    await broker.append(0, [b"x"] * (MAX_RECORDS - 1))
    with pytest.raises(Busy) as refused:
        await broker.append(0, [b"a", b"b"])
    assert refused.value.outcome == "none"
    assert refused.value.retry_after_ms
    await broker.append(0, [b"a"])
    records = await take(subscription, MAX_RECORDS)
    assert values(records)[-1] == b"a"
    await subscription.commit(positions(records))
    await broker.append(0, [b"b"])
