"""The contract of app/brokers/base.py, for every adapter. A new adapter is one line in `BROKERS`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from app.brokers.base import Broker, Record, Subscription
from app.brokers.memory import MemoryBroker
from app.errors import Busy

PARTITIONS = 4
MAX_RECORDS = 100

BROKERS: dict[str, Callable[[], Broker]] = {"memory": lambda: MemoryBroker(PARTITIONS, MAX_RECORDS)}


class Ownership:
    """Remembers what a listener was told."""

    def __init__(self) -> None:
        self.owned: set[int] = set()

    async def on_assigned(self, partitions: Sequence[int]) -> None:
        self.owned |= set(partitions)

    async def on_revoked(self, partitions: Sequence[int]) -> None:
        self.owned -= set(partitions)


@pytest.fixture(params=list(BROKERS))
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    broker = BROKERS[request.param]()
    await broker.start()
    yield broker
    await broker.stop()


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
    async with asyncio.timeout(10):
        while len(records) < count:
            records += await subscription.fetch(at_once, 0.001)
    assert len(records) == count
    return records


def values(records: Sequence[Record], partition: int) -> list[bytes]:
    return [record.value for record in records if record.partition == partition]


async def test_order_is_kept_within_each_partition(broker: Broker, subscription: Subscription) -> None:
    for number in range(20):
        await broker.append(number % 2, [b"%d-a" % number, b"%d-b" % number])
    records = await take(subscription, 40, at_once=7)
    for partition in (0, 1):
        expected = [b"%d-%s" % (n, part) for n in range(partition, 20, 2) for part in (b"a", b"b")]
        assert values(records, partition) == expected
        offsets = [record.offset for record in records if record.partition == partition]
        assert offsets == sorted(set(offsets))


async def test_fetch_waits_for_the_first_record(broker: Broker, subscription: Subscription) -> None:
    fetch = asyncio.ensure_future(subscription.fetch(10, 0))
    done, _ = await asyncio.wait([fetch], timeout=0.05)
    assert not done
    await broker.append(2, [b"x"])
    async with asyncio.timeout(5):
        assert [record.value for record in await fetch] == [b"x"]


async def test_fetch_collects_during_its_linger(broker: Broker, subscription: Subscription) -> None:
    await broker.append(0, [b"first"])
    fetch = asyncio.ensure_future(subscription.fetch(10, 0.3))
    await asyncio.sleep(0)
    await broker.append(1, [b"second"])
    assert sorted(record.value for record in await fetch) == [b"first", b"second"]


async def test_no_partition_starves_the_others(broker: Broker, subscription: Subscription) -> None:
    await broker.append(0, [b"busy"] * 50)
    await broker.append(1, [b"quiet"])
    first = await subscription.fetch(10, 0)
    second = await subscription.fetch(10, 0)
    assert b"quiet" in [record.value for record in first + second]


async def test_what_is_not_committed_waits_for_the_next_subscription(broker: Broker) -> None:
    await broker.append(0, [b"1", b"2"])
    first = await broker.subscribe(Ownership())
    records = await take(first, 2)
    await first.commit({0: values_offset(records, b"1")})
    await first.close()
    second = await broker.subscribe(Ownership())
    assert values(await take(second, 1), 0) == [b"2"]
    await second.close()


def values_offset(records: Sequence[Record], value: bytes) -> int:
    return next(record.offset for record in records if record.value == value)


async def test_a_full_log_refuses_whole_appends_and_says_when_to_retry(
    broker: Broker, subscription: Subscription
) -> None:
    await broker.append(0, [b"x"] * (MAX_RECORDS - 1))
    with pytest.raises(Busy) as refused:
        await broker.append(1, [b"a", b"b"])
    assert refused.value.outcome == "none"
    assert refused.value.retry_after_ms
    await broker.append(1, [b"a"])
    records = await take(subscription, MAX_RECORDS)
    assert values(records, 1) == [b"a"]
    await subscription.commit({record.partition: record.offset for record in records})
    assert broker.depth() == 0
    await broker.append(1, [b"b"])


async def test_ownership_is_told_before_records_and_after_closing(broker: Broker, ownership: Ownership) -> None:
    subscription = await broker.subscribe(ownership)
    assert ownership.owned == set(range(PARTITIONS))
    await subscription.close()
    assert ownership.owned == set()


def test_partition_of_a_group_is_the_crc32_of_its_decimal_id() -> None:
    # Fixed values: another implementation, or another version, must put a group into the same partition.
    broker = MemoryBroker(16, 1)
    assert [broker.partition_of(group) for group in (1, 42, 9223372036854775807)] == [7, 8, 14]


async def test_who_could_not_take_its_partitions_subscribes_again(broker: Broker) -> None:
    class FailsOnce(Ownership):
        tried = False

        async def on_assigned(self, partitions: Sequence[int]) -> None:
            if not self.tried:
                self.tried = True
                raise Busy("the store is away", retry_after_ms=1)
            await super().on_assigned(partitions)

    listener = FailsOnce()
    await broker.append(1, [b"x"])
    with pytest.raises(Busy):
        await broker.subscribe(listener)
    assert not listener.owned
    subscription = await broker.subscribe(listener)
    assert values(await take(subscription, 1), 1) == [b"x"]
    await subscription.close()
