"""Token buckets of one process: a burst of the capacity, then the refill rate, and a bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage.ratelimit import LocalBuckets, Take


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def test_the_burst_is_the_capacity_and_then_tokens_come_back_one_by_one() -> None:
    clock = Clock()
    buckets = LocalBuckets(buckets_max=10, monotonic_s=clock)
    assert [buckets.take(Take("a", 3, 1.0)) for _ in range(3)] == [0.0] * 3
    assert buckets.take(Take("a", 3, 1.0)) == pytest.approx(1.0)
    assert buckets.take(Take("b", 3, 1.0)) == 0.0
    clock.s += 0.25
    assert buckets.take(Take("a", 3, 1.0)) == pytest.approx(0.75)
    clock.s += 0.75
    assert buckets.take(Take("a", 3, 1.0)) == 0.0
    assert buckets.take(Take("a", 3, 1.0, n=2)) == pytest.approx(2.0)
    clock.s += 3600
    assert buckets.take(Take("a", 3, 1.0, n=3)) == 0.0
    assert buckets.take(Take("a", 3, 1.0)) > 0


@given(
    st.integers(1, 100),
    st.floats(0.01, 1000),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 100)), max_size=50),
)
def test_no_stretch_of_time_gives_more_than_burst_and_refill_and_waiting_as_told_is_enough(
    capacity: int, refill_per_s: float, tries: list[tuple[float, int]]
) -> None:
    clock = Clock()
    buckets = LocalBuckets(buckets_max=1, monotonic_s=clock)
    granted: list[tuple[float, int]] = []
    for pause_s, n in tries:
        clock.s += pause_s
        take = Take("a", capacity, refill_per_s, min(n, capacity))
        wait_s = buckets.take(take)
        if wait_s > 0:
            clock.s += wait_s
            assert buckets.take(take) == 0.0
        granted.append((clock.s, take.n))
    for i, (since, _) in enumerate(granted):
        total = 0
        for until, n in granted[i:]:
            total += n
            assert total <= capacity + (until - since + 1e-5) * refill_per_s + 1e-6


def test_beyond_the_bound_the_bucket_unused_for_longest_is_forgotten() -> None:
    buckets = LocalBuckets(buckets_max=2, monotonic_s=Clock())
    for key in ("a", "b", "a", "c"):
        buckets.take(Take(key, 1, 0.001))
        assert len(buckets) <= 2
    assert buckets.take(Take("a", 1, 0.001)) > 0
    assert buckets.take(Take("b", 1, 0.001)) == 0.0


@pytest.mark.parametrize(("capacity", "refill_per_s", "n"), [(3, 1.0, 4), (3, 1.0, 0), (3, 0.0, 1)])
def test_what_can_never_be_granted_is_a_defect_of_the_caller(capacity: int, refill_per_s: float, n: int) -> None:
    with pytest.raises(ValueError, match="never fit"):
        Take("a", capacity, refill_per_s, n)
