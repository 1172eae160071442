"""What the server says about itself: the time per stage of the message path, from its metrics."""

import asyncio
from collections.abc import Sequence

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 10.0
HISTOGRAMS = {
    "im_stage_seconds": "stage",
    "im_batch_size": "",
    "im_loop_lag_seconds": "",
    "im_ack_seconds": "",
    "im_push_seconds": "",
    "im_push_items": "",
}
"""Histogram → the label that tells its series apart."""
COUNTED = ("batch_size", "push_items")
"""Series that are no times."""
COUNTERS = {"im_delivery_bytes": "channel"}
"""Counter of bytes → the label that tells its series apart."""
PER_GATEWAY = tuple(name.removeprefix("im_") for name in COUNTERS)
"""Series that are bytes; shown as kB/s of each gateway."""

Totals = dict[str, tuple[float, float]]
"""Series → (sum, count); of counters the count is 0."""


class Mean(msgspec.Struct):
    """Of one series during the load."""

    count: float
    mean: float
    """Milliseconds, messages and answers for those that are counted, or kB/s of each gateway."""


async def scrape(urls: Sequence[str]) -> Totals:
    """Totals of the histograms of several processes together."""
    together: Totals = {}
    for totals in await asyncio.gather(*map(_scrape, urls)):
        for series, (total, count) in totals.items():
            known = together.get(series, (0.0, 0.0))
            together[series] = (known[0] + total, known[1] + count)
    return together


async def _scrape(url: str) -> Totals:
    """Of one; empty when it cannot be read (it may not be open to us)."""
    try:
        async with ClientSession(timeout=ClientTimeout(total=TIMEOUT_S)) as session, session.get(url) as answer:
            if answer.status != 200:
                return {}
            text = await answer.text()
    except (ClientError, TimeoutError):
        return {}
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        if (label := COUNTERS.get(family.name)) is not None:
            name = family.name.removeprefix("im_")
            totals = {f"{name} {s.labels[label]}": s.value for s in family.samples if s.name.endswith("_total")}
            sums |= totals
            continue
        label = HISTOGRAMS.get(family.name)
        if label is None:
            continue
        name = family.name.removeprefix("im_").removesuffix("_seconds")
        for sample in family.samples:
            series = f"{name} {sample.labels[label]}" if label else name
            if sample.name.endswith("_sum"):
                sums[series] = sample.value
            elif sample.name.endswith("_count"):
                counts[series] = sample.value
    return {series: (total, counts.get(series, 0)) for series, total in sums.items()}


def means(before: Totals, after: Totals, seconds: float, gateways: int) -> dict[str, Mean]:
    """Series → what happened in between, which took so long."""
    found = {}
    for series, (total, count) in after.items():
        old_total, old_count = before.get(series, (0.0, 0.0))
        if series.startswith(PER_GATEWAY):
            found[series] = Mean(total - old_total, (total - old_total) / 1000 / seconds / gateways)
        elif count > old_count:
            unit = 1 if series in COUNTED else 1000
            found[series] = Mean(count - old_count, (total - old_total) / (count - old_count) * unit)
    return found
