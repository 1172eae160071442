"""Snowflake ids are unique and rising whatever the clocks do; what cannot be made safely is refused."""

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Busy
from app.ids import EPOCH_MS, MAX_AHEAD_MS, Granted, Lease, Snowflake, SnowflakeLease, timestamp_ms
from app.lifecycle import Readiness

NOW_MS = EPOCH_MS + 10_000_000_000
HOUR_MS = 3_600_000
MAX_BACKWARD_MS = 5
PER_MS = 4096


class Clock:
    """A clock that the test sets."""

    def __init__(self, ms: int = NOW_MS) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms


class TrueTime:
    """Time that only goes on: the monotonic clock, and the database's."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def snowflake(
    clock: Callable[[], int], *, worker_id: int = 7, from_ms: int = 0, until_ms: int = NOW_MS + 100 * HOUR_MS
) -> Snowflake:
    ids = Snowflake(max_backward_ms=MAX_BACKWARD_MS, clock_ms=clock, monotonic_s=lambda: 0.0)
    ids.lease = Lease(worker_id, from_ms, until_ms, deadline_s=1.0)
    return ids


def test_an_id_holds_milliseconds_worker_and_sequence_and_fits_an_int64() -> None:
    ids = snowflake(Clock(), worker_id=1023)
    first, second = ids.stamp(2)
    assert first == ((NOW_MS - EPOCH_MS) << 22) | (1023 << 12)
    assert second == first + 1
    assert timestamp_ms(first) == ids.timestamp_ms(first) == NOW_MS
    last_of_all = snowflake(Clock(EPOCH_MS + (1 << 41) - 1), until_ms=EPOCH_MS + (1 << 42))
    assert last_of_all.stamp(PER_MS)[-1] < 1 << 63
    with pytest.raises(Busy):
        last_of_all.stamp(1)


def test_the_system_clock_is_used_by_default() -> None:
    ids = Snowflake(max_backward_ms=MAX_BACKWARD_MS)
    before_ms = time.time_ns() // 1_000_000
    ids.lease = Lease(1, 0, before_ms + HOUR_MS, time.monotonic() + 60)
    assert before_ms <= timestamp_ms(ids.stamp(1)[0]) <= time.time_ns() // 1_000_000


@given(
    st.lists(st.tuples(st.integers(-HOUR_MS, HOUR_MS) | st.integers(-10, 10), st.integers(0, 3 * PER_MS)), max_size=30)
)
def test_ids_are_unique_and_rising_under_any_movement_of_the_clock(moves: list[tuple[int, int]]) -> None:
    clock = Clock()
    ids = snowflake(clock)
    all_ids = [*ids.stamp(1)]
    newest_ms = clock.ms
    for move_ms, n in moves:
        clock.ms += move_ms
        assert ids.ready == (newest_ms - clock.ms <= MAX_BACKWARD_MS)
        if ids.ready:
            try:
                all_ids += ids.stamp(n)
            except Busy:
                fitting_ms = max(newest_ms, clock.ms) + MAX_AHEAD_MS - max(ids.unused_ms, clock.ms)
                assert n > fitting_ms * PER_MS, "refused without need"
                continue
            newest_ms = max(newest_ms, clock.ms) if n else newest_ms
        elif n:
            with pytest.raises(Busy):
                ids.stamp(n)
    assert all(a < b for a, b in pairwise(all_ids))


@pytest.mark.parametrize("back_ms", [1, MAX_BACKWARD_MS, MAX_BACKWARD_MS + 1, 1000, HOUR_MS])
def test_a_clock_gone_back_is_bridged_up_to_the_bound_and_refused_beyond(back_ms: int) -> None:
    clock = Clock()
    ids = snowflake(clock)
    before = ids.stamp(1)[0]
    clock.ms -= back_ms
    if back_ms <= MAX_BACKWARD_MS:
        after = ids.stamp(1)[0]
        assert after > before and timestamp_ms(after) == NOW_MS
        return
    assert f"went back by {back_ms} ms" in str(ids.reason)
    with pytest.raises(Busy):
        ids.stamp(1)
    assert ids.stamp(0) == []
    clock.ms = NOW_MS - MAX_BACKWARD_MS
    assert ids.stamp(1)[0] > before


def test_a_batch_larger_than_a_millisecond_borrows_from_the_next_ones_within_the_bound() -> None:
    clock = Clock()
    ids = snowflake(clock)
    batch = ids.stamp(PER_MS * MAX_AHEAD_MS)
    assert timestamp_ms(batch[-1]) == NOW_MS + MAX_AHEAD_MS - 1
    with pytest.raises(Busy) as caught:
        ids.stamp(1)
    assert caught.value.retry_after_ms
    clock.ms += 1
    assert ids.stamp(PER_MS)[0] > batch[-1]
    with pytest.raises(Busy):
        ids.stamp(1)


def test_a_batch_that_does_not_fit_stamps_nothing() -> None:
    ids = snowflake(Clock())
    with pytest.raises(Busy):
        ids.stamp(PER_MS * MAX_AHEAD_MS + 1)
    assert timestamp_ms(ids.stamp(1)[0]) == NOW_MS


def test_only_the_stretch_of_the_lease_is_stamped() -> None:
    clock = Clock()
    ids = snowflake(clock, from_ms=NOW_MS + 20, until_ms=NOW_MS + 40)
    stamped = []
    for clock.ms in range(NOW_MS, NOW_MS + 60):
        if ids.ready:
            stamped.append(timestamp_ms(ids.stamp(1)[0]))
    assert stamped == list(range(NOW_MS + 20, NOW_MS + 40))
    clock.ms = NOW_MS + 39
    with pytest.raises(Busy):
        ids.stamp(2 * PER_MS)


def test_without_a_lease_or_after_its_deadline_nothing_is_stamped() -> None:
    time_s = TrueTime()
    ids = Snowflake(max_backward_ms=MAX_BACKWARD_MS, clock_ms=Clock(), monotonic_s=time_s)
    with pytest.raises(Busy):
        ids.stamp(1)
    assert ids.reason == "no worker id is leased"
    ids.lease = Lease(1, 0, NOW_MS + HOUR_MS, deadline_s=time_s.s + 1)
    assert len(ids.stamp(1)) == 1
    time_s.s += 1
    with pytest.raises(Busy):
        ids.stamp(1)
    assert "ran out" in str(ids.reason)


class OneWorker:
    """A table with a single worker id, so that every holder follows another; keeps the database's time."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._holder, self._not_after_ms = "", 0
        self.grants = 0

    async def take(self, holder: str, lease_s: float) -> Granted | None:
        if self._not_after_ms >= self._now_ms():
            return None
        before_ms, self._not_after_ms = self._not_after_ms, self._now_ms() + round(lease_s * 1000)
        self._holder = holder
        self.grants += 1
        return Granted(0, before_ms, self._not_after_ms)

    async def renew(self, worker_id: int, holder: str, lease_s: float) -> int | None:
        if holder != self._holder:
            return None
        self._not_after_ms = max(self._not_after_ms, self._now_ms() + round(lease_s * 1000))
        return self._not_after_ms

    async def release(self, worker_id: int, holder: str, until_ms: int) -> None:
        if holder == self._holder:
            self._not_after_ms = min(self._not_after_ms, until_ms)


HOLDERS, LEASE_MS = 2, 10
WHO = st.integers(0, HOLDERS - 1)
SHIFT = st.integers(-LEASE_MS, LEASE_MS)
# "turn": the clock of one goes wrong, it gets the lease if it can, and stamps.
STEPS = st.one_of(
    st.tuples(st.just("pass"), WHO, st.integers(1, LEASE_MS + 1)),
    st.tuples(st.just("turn"), WHO, SHIFT),
    st.tuples(st.just("turn"), WHO, SHIFT),
    st.tuples(st.just("stamp"), WHO, SHIFT),
    st.tuples(st.just("skew database"), WHO, SHIFT),
    st.tuples(st.just("release"), WHO, SHIFT),
)


@settings(max_examples=400)
@given(st.lists(STEPS, min_size=20, max_size=40), st.integers(1, 2 * PER_MS))
async def test_holders_with_wrong_clocks_that_follow_each_other_never_stamp_the_same_id(
    steps: list[tuple[str, int, int]], n: int
) -> None:
    true_s = TrueTime()
    database = Clock()
    clocks = [Clock() for _ in range(HOLDERS)]
    table = OneWorker(database)
    ids = [Snowflake(max_backward_ms=MAX_BACKWARD_MS, clock_ms=clock, monotonic_s=true_s) for clock in clocks]
    leases = [
        SnowflakeLease(table, each, Readiness(), lease_s=LEASE_MS / 1000, renew_s=1, monotonic_s=true_s) for each in ids
    ]
    # One list for each grant, in their order; the one of each holder.
    stamped: list[list[int]] = []
    current: list[list[int]] = [[] for _ in ids]
    for step, i, amount in steps:
        match step:
            case "pass":
                true_s.s += amount / 1000
                for clock in (database, *clocks):
                    clock.ms += amount
            case "skew database":
                database.ms += amount
            case "release":
                await leases[i].release()
            case "turn":
                clocks[i].ms += amount
                with suppress(Busy):
                    await leases[i].renew()
                if table.grants > len(stamped):
                    current[i] = []
                    stamped.append(current[i])
        if step in ("turn", "stamp"):
            with suppress(Busy):
                current[i] += ids[i].stamp(n)
    in_order_of_grants = list(chain.from_iterable(stamped))
    assert all(a < b for a, b in pairwise(in_order_of_grants))
