"""The contract of app/brokers/base.py, for every adapter: several readers come and go."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from app.brokers.base import Broker, Record, Subscription
from app.brokers.shares import share
from tests.contract.logs import PARTITIONS, Connect, Ownership, positions, values


class Reader:
    """A consumer process: reads and commits until it is closed, or killed, which commits and says nothing."""

    def __init__(self, broker: Broker, subscription: Subscription, ownership: Ownership) -> None:
        self.ownership = ownership
        self.records: list[Record] = []
        self._subscription = subscription
        self._broker = broker
        self._task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while True:
            records = await self._subscription.fetch(10)
            self.records += records
            await self._subscription.commit(positions(records))

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._subscription.close()

    @classmethod
    async def on(cls, connect: Connect) -> "Reader":
        broker, ownership = await connect(), Ownership()
        return cls(broker, await broker.subscribe(ownership), ownership)


async def until_owned(*readers: Reader) -> None:
    """Wait until the readers share everything evenly."""
    async with asyncio.timeout(30):
        while True:
            owned = [reader.ownership.owned for reader in readers]
            if len(set().union(*owned)) == PARTITIONS == sum(map(len, owned)) and max(map(len, owned)) - min(
                map(len, owned)
            ) <= (PARTITIONS % len(readers) > 0):
                return
            await asyncio.sleep(0.02)


async def until_read(count: int, *readers: Reader) -> list[Record]:
    """Wait until the readers have `count` different values."""
    async with asyncio.timeout(30):
        while len({value for reader in readers for value in values(reader.records)}) < count:
            await asyncio.sleep(0.02)
    return [record for reader in readers for record in reader.records]


async def test_readers_share_the_partitions_and_hand_them_on(connect: Connect) -> None:
    broker = await connect()
    first = await Reader.on(connect)
    await until_owned(first)
    second = await Reader.on(connect)
    await until_owned(first, second)
    for number in range(40):
        await broker.append(number % PARTITIONS, [b"%d" % number])
    await until_read(40, first, second)
    await first.close()
    await until_owned(second)
    for number in range(40, 60):
        await broker.append(number % PARTITIONS, [b"%d" % number])
    await until_read(60, first, second)
    third = await Reader.on(connect)
    await until_owned(second, third)
    await second.close()
    await third.close()


async def test_each_record_is_read_in_order_while_readers_come_and_go(connect: Connect) -> None:
    broker, sent, enough = await connect(), 0, asyncio.Event()
    readers = [await Reader.on(connect)]
    gone: list[Reader] = []

    async def send() -> None:
        nonlocal sent
        while not enough.is_set():
            await broker.append(sent % PARTITIONS, [b"%d" % sent])
            sent += 1
            await asyncio.sleep(0.005)

    sending = asyncio.ensure_future(send())
    for _ in range(3):
        readers.append(await Reader.on(connect))
        await until_owned(*readers)
        gone.append(readers.pop(0))
        await gone[-1].close()
        await until_owned(*readers)
    # Asked, not cancelled: nobody could say whether a cancelled append is in the log.
    enough.set()
    await sending
    await until_read(sent, *readers, *gone)
    for reader in readers:
        await reader.close()
    by_offset: dict[tuple[int, int], bytes] = {}
    for record in (record for reader in readers + gone for record in reader.records):
        assert by_offset.setdefault((record.partition, record.offset), record.value) == record.value
    for partition in range(PARTITIONS):
        numbers = [int(value) for (p, _), value in sorted(by_offset.items()) if p == partition]
        assert numbers == sorted(numbers)
    assert len(by_offset) == sent


async def test_a_batch_in_work_is_finished_before_its_partitions_go(connect: Connect) -> None:
    broker, first, second = await connect(), Ownership(), Ownership()
    subscription = await broker.subscribe(first)
    for partition in range(PARTITIONS):
        await broker.append(partition, [b"%d" % partition])
    in_work: list[Record] = []
    async with asyncio.timeout(30):
        while len(in_work) < PARTITIONS:
            in_work += await subscription.fetch(10)
        # Nothing goes while this batch is in work, for a time that a batch may take.
        joining = await (await connect()).subscribe(second)
        other = asyncio.ensure_future(joining.fetch(10))
        await asyncio.wait({other}, timeout=0.5)
        assert first.owned == set(range(PARTITIONS))
        await subscription.commit(positions(in_work))
        fetch = asyncio.ensure_future(subscription.fetch(10))
        while not (first.owned and second.owned and len(first.owned | second.owned) == PARTITIONS):
            await asyncio.sleep(0.02)
        for partition in range(PARTITIONS):
            await broker.append(partition, [b"%d again" % partition])
        read = values(await fetch) + values(await other)
    assert all(value.endswith(b"again") for value in read), "what was done does not come again"
    await subscription.close()
    await joining.close()


async def test_a_late_commit_is_not_for_what_was_taken_again(connect: Connect) -> None:
    broker, first, second = await connect(), Ownership(), Ownership()
    subscription = await broker.subscribe(first)
    for partition in range(PARTITIONS):
        await broker.append(partition, [b"%d a" % partition, b"%d b" % partition])
    batch: list[Record] = []
    seen: list[Record] = []
    async with asyncio.timeout(30):
        while len(batch) < 2 * PARTITIONS:
            batch += await subscription.fetch(10)
        other = await (await connect()).subscribe(second)
        reading, fetch = asyncio.ensure_future(other.fetch(10)), asyncio.ensure_future(subscription.fetch(1))
        while not second.owned:
            await asyncio.sleep(0.01)
            if fetch.done():
                fetch = asyncio.ensure_future(subscription.fetch(1))
        went = set(second.owned)
        reading.cancel()
        await asyncio.wait({reading})
        await other.close()
        # One record only: of most partitions that come back nothing is handed out yet.
        while len(first.owned) < PARTITIONS or not fetch.done():
            await asyncio.sleep(0.01)
            if fetch.done() and len(first.owned) < PARTITIONS:
                seen += fetch.result()
                fetch = asyncio.ensure_future(subscription.fetch(1))
        seen += fetch.result()
        await subscription.commit(positions(batch))
        while not {value for value in values(batch) if int(value[:1]) in went} <= set(values(seen)):
            seen += await subscription.fetch(10)
    await subscription.close()


@given(st.integers(1, 64), st.sets(st.text(max_size=3), min_size=1, max_size=9))
def test_shares_are_even_and_add_up(partitions: int, readers: set[str]) -> None:
    shares = [share(partitions, readers, reader) for reader in readers]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1
