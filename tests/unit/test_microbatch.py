"""MicroBatcher: few loads for many callers, and no caller hurts another."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from app.errors import Busy, NotFound
from app.microbatch import MicroBatcher


class Store:
    """Answers `key * 10`; each load waits until the test lets it go on."""

    def __init__(self, *, open_: bool = True) -> None:
        self.loads: list[list[int]] = []
        self.running = self.most_running = 0
        self.gate = asyncio.Event()
        self.failure: BaseException | None = None
        self.absent: set[int] = set()
        if open_:
            self.gate.set()

    async def load(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.loads.append(list(keys))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.gate.wait()
            if self.failure is not None:
                raise self.failure
            return {key: key * 10 for key in keys if key not in self.absent}
        finally:
            self.running -= 1

    async def until_loads(self, n: int) -> None:
        while len(self.loads) < n:
            await asyncio.sleep(0)


def batcher(
    store: Store, *, max_batch: int = 100, linger_s: float = 0, max_waiting: int = 1000, max_parallel: int = 2
) -> MicroBatcher[int, int]:
    return MicroBatcher(
        store.load, max_batch=max_batch, linger_s=linger_s, max_waiting=max_waiting, max_parallel=max_parallel
    )


async def test_concurrent_calls_are_one_load_and_equal_keys_are_one_key() -> None:
    store = Store()
    batch = batcher(store)
    assert await asyncio.gather(*(batch.get(key) for key in (1, 2, 1, 3))) == [10, 20, 10, 30]
    assert store.loads == [[1, 2, 3]]


async def test_a_full_batch_does_not_linger() -> None:
    store = Store()
    batch = batcher(store, max_batch=2, linger_s=3600)
    assert list(await asyncio.gather(batch.get(1), batch.get(2))) == [10, 20]


async def test_no_load_is_larger_than_a_batch_and_only_so_many_run_at_once() -> None:
    store = Store(open_=False)
    batch = batcher(store, max_batch=10, max_parallel=3)
    calls = [asyncio.ensure_future(batch.get(key)) for key in range(95)]
    await store.until_loads(3)
    store.gate.set()
    assert await asyncio.gather(*calls) == [key * 10 for key in range(95)]
    assert max(map(len, store.loads)) == 10 and store.most_running == 3
    assert sorted(key for load in store.loads for key in load) == list(range(95))


async def test_a_load_under_way_is_not_joined_because_its_answer_may_be_older_than_the_question() -> None:
    store = Store(open_=False)
    batch = batcher(store)
    first = asyncio.ensure_future(batch.get(1))
    await store.until_loads(1)
    second = asyncio.ensure_future(batch.get(1))
    await store.until_loads(2)
    store.gate.set()
    assert list(await asyncio.gather(first, second)) == [10, 10]
    assert store.loads == [[1], [1]]


@pytest.mark.parametrize("failure", [NotFound("none"), ValueError("a defect")])
async def test_a_failure_reaches_every_caller_and_the_next_load_is_a_new_one(failure: Exception) -> None:
    store = Store()
    store.failure = failure
    batch = batcher(store)
    assert await asyncio.gather(*(batch.get(key) for key in (1, 1, 2)), return_exceptions=True) == [failure] * 3
    store.failure = None
    assert await batch.get(1) == 10


async def test_a_key_left_out_fails_only_its_own_callers() -> None:
    store = Store()
    store.absent = {2}
    batch = batcher(store)
    one, two = await asyncio.gather(batch.get(1), batch.get(2), return_exceptions=True)
    assert one == 10 and isinstance(two, KeyError)


@pytest.mark.parametrize("when", ["waiting", "loading"])
async def test_a_cancelled_caller_does_not_disturb_the_others(when: str) -> None:
    store = Store(open_=False)
    batch = batcher(store)
    calls = [asyncio.ensure_future(batch.get(key)) for key in (1, 1, 2, 3)]
    if when == "loading":
        await store.until_loads(1)
    else:
        await asyncio.sleep(0)
    calls[0].cancel()
    calls[3].cancel()
    store.gate.set()
    assert list(await asyncio.gather(calls[1], calls[2])) == [10, 20]
    await asyncio.wait(calls)
    assert calls[0].cancelled() and calls[3].cancelled()
    assert store.loads == [[1, 2, 3] if when == "loading" else [1, 2]]


async def test_beyond_the_bound_callers_are_busy_until_others_are_answered() -> None:
    store = Store(open_=False)
    batch = batcher(store, max_waiting=3)
    calls = [asyncio.ensure_future(batch.get(key)) for key in (1, 1, 2)]
    await store.until_loads(1)
    with pytest.raises(Busy) as caught:
        await batch.get(3)
    assert caught.value.retry_after_ms
    store.gate.set()
    await asyncio.gather(*calls)
    assert await batch.get(3) == 30


async def test_callers_that_gave_up_leave_nothing_behind() -> None:
    store = Store(open_=False)
    batch = batcher(store, max_waiting=3, max_parallel=1)
    stuck = asyncio.ensure_future(batch.get(0))
    await store.until_loads(1)
    for _ in range(10):
        gone = [asyncio.ensure_future(batch.get(key)) for key in (1, 2)]
        await asyncio.sleep(0)
        for call in gone:
            call.cancel()
        await asyncio.wait(gone)
    store.gate.set()
    assert await stuck == 0
    assert await batch.get(5) == 50
    assert store.loads == [[0], [5]]


async def test_a_cancelled_load_is_busy_for_its_callers() -> None:
    store = Store()
    store.failure = asyncio.CancelledError()
    with pytest.raises(Busy):
        await batcher(store).get(1)
