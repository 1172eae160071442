"""Latencies: counted in the worker at the price of a dict update, made into an HDR histogram afterwards."""

from collections.abc import Iterable, Mapping

import msgspec
from hdrh.histogram import HdrHistogram

MAX_US = 3_600_000_000
"""One hour; nothing in a bounded run lasts longer."""
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


class Summary(msgspec.Struct):
    """Milliseconds; 0 where nothing was counted."""

    count: int
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


def summarise(parts: Iterable[Mapping[int, int]]) -> Summary:
    """Merge counts by microseconds and take the percentiles, exact to 3 significant digits."""
    histogram = HdrHistogram(1, MAX_US, 3)
    highest = 0
    for part in parts:
        for us, count in part.items():
            histogram.record_value(min(max(us, 1), MAX_US), count)
            highest = max(highest, us)
    count = histogram.get_total_count()
    p50, p90, p99, p99_9 = (histogram.get_value_at_percentile(p) / 1000 if count else 0.0 for p in PERCENTILES)
    return Summary(count, p50, p90, p99, p99_9, highest / 1000)
