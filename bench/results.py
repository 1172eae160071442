"""The figures of a run, of several runs, and how they are written."""

import os
import platform
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psutil

from bench.latency import Summary, summarise
from bench.plan import Result, Shape
from bench.scrape import Mean
from bench.usage import MACHINE, Use

MB = 1_000_000
FELT_RATIO, FELT_MS = 1.5, 20.0
"""What slow readers may cost the others: so many times the P99, or so much more, whichever allows more."""


@dataclass
class Measured:
    """Use of the roles at the turning points of a run."""

    connect_s: float
    empty: dict[str, Use]
    connected: dict[str, Use]
    start: dict[str, Use] = field(default_factory=dict)
    end: dict[str, Use] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    load_s: float = 0.0
    """From the end of the warm-up until everything was delivered."""
    drained: bool = False
    unanswered: list[int] = field(default_factory=list)
    """Sends that waited for their answer, at each second of the load."""
    server: dict[str, Mean] = field(default_factory=dict)


class Anomalies(msgspec.Struct):
    """What the history checker found."""

    found: dict[str, int]
    examples: list[str]
    events: int
    unread_groups: int
    unjudged: int

    @property
    def clean(self) -> bool:
        """Nothing found, and nothing left unjudged."""
        return not (self.found or self.unread_groups or self.unjudged)


class Backlog(msgspec.Struct):
    """Sends that waited for their answer, as looked at every second. A server that keeps up has as many in both halves of the load."""

    first_half: float
    second_half: float
    max: float


class RunResult(msgspec.Struct):
    """One run. Memory is in MB of 10^6 bytes, latencies in ms from the time a message was due."""

    connected: int
    connect_s: float
    connect: Summary
    connect_failures: dict[str, int]
    sent: int
    acked: int
    delivered: int
    expected: int
    drained: bool
    """Whether everything was answered and delivered before the run ended."""
    messages_per_s: float
    deliveries_per_s: float
    warm_up: Summary
    """Until the ack, of what was due in the warm-up, which is no part of anything else here."""
    ack: Summary
    delivery: Summary
    late: Summary
    errors: dict[str, int]
    unanswered: Backlog
    not_sent: int
    closed: dict[str, int]
    gaps: int
    pulled: int
    pull_failures: dict[str, int]
    cpu_us_per_message: dict[str, float]
    cpu_percent: dict[str, float]
    """Of one core, from the first send until all was delivered."""
    cpu_percent_others: float
    """Of one core, by processes that are no part of the run: above a few percent they disturb it."""
    memory_mb: dict[str, float]
    """The highest during the run."""
    memory_connected_mb: dict[str, float]
    """When all were connected, before the load."""
    memory_empty_mb: dict[str, float]
    server: dict[str, Mean]
    """The server's own metrics during the load."""
    anomalies: Anomalies | None


def sum_up(
    results: Sequence[Result],
    shape: Shape,
    measured: Measured,
    failures: dict[str, int],
    anomalies: Anomalies | None,
) -> RunResult:
    """The figures of all workers together."""
    progress = [result.progress for result in results]
    acked = sum(each.acked for each in progress)
    delivered = sum(each.delivered for each in progress)
    cpu = {role: use.cpu_s - measured.start.get(role, Use()).cpu_s for role, use in measured.end.items()}
    cpu_machine = cpu.pop(MACHINE)
    return RunResult(
        connected=sum(each.connected for each in progress),
        connect_s=measured.connect_s,
        connect=summarise(result.connect_us for result in results),
        connect_failures=failures,
        sent=sum(each.sent for each in progress),
        acked=acked,
        delivered=delivered,
        expected=sum(each.expected for each in progress),
        drained=measured.drained,
        messages_per_s=acked / shape.duration_s,
        deliveries_per_s=delivered / shape.duration_s,
        warm_up=summarise(result.warm_up_us for result in results),
        ack=summarise(result.ack_us for result in results),
        delivery=summarise(result.delivery_us for result in results),
        late=summarise(result.late_us for result in results),
        errors=_merge(result.errors for result in results),
        unanswered=_backlog(measured.unanswered),
        not_sent=sum(result.not_sent for result in results),
        closed=_merge(result.closed for result in results),
        gaps=sum(result.gaps for result in results),
        pulled=sum(result.pulled for result in results),
        pull_failures=_merge(result.pull_failures for result in results),
        cpu_us_per_message={role: s / acked * 1e6 for role, s in cpu.items()} if acked else {},
        cpu_percent={role: s / measured.load_s * 100 for role, s in cpu.items()},
        cpu_percent_others=max(0.0, cpu_machine - sum(cpu.values())) / measured.load_s * 100,
        memory_mb={role: measured.peak[role] / MB for role in cpu},
        memory_connected_mb=_memory(measured.connected),
        memory_empty_mb=_memory(measured.empty),
        server=measured.server,
        anomalies=anomalies,
    )


def _backlog(samples: Sequence[int]) -> Backlog:
    middle = len(samples) // 2
    first, second = samples[:middle] or [0], samples[middle:] or [0]
    return Backlog(statistics.fmean(first), statistics.fmean(second), max(samples, default=0))


def _memory(uses: Mapping[str, Use]) -> dict[str, float]:
    return {role: use.memory / MB for role, use in uses.items() if role != MACHINE}


def _merge(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    merged: Counter[str] = Counter()
    for part in parts:
        merged.update(part)
    return dict(merged)


def median(runs: Sequence[RunResult]) -> dict[str, Any]:
    """Field by field the median of the runs, as JSON; a field of texts or of truth is left out."""
    found = _median([msgspec.to_builtins(run) for run in runs])
    return found if isinstance(found, dict) else {}


def _median(values: Sequence[Any]) -> Any:
    first = next((value for value in values if value is not None), None)
    if isinstance(first, dict):
        names = {name: None for value in values if value for name in value}
        columns = {name: _median([(value or {}).get(name) for value in values]) for name in names}
        return {name: value for name, value in columns.items() if value is not None}
    if isinstance(first, int | float) and not isinstance(first, bool):
        # What a run did not count, it counted zero times.
        return statistics.median(value or 0 for value in values)
    return None


def ratios(results: Sequence[RunResult], others: Sequence[RunResult]) -> str:
    """The medians of `results` divided by those of `others`."""
    one, other = median(results), median(others)
    pairs = {
        "messages/s": (one["acked"], other["acked"]),
        "ack P50": (one["ack"]["p50"], other["ack"]["p50"]),
        "ack P99": (one["ack"]["p99"], other["ack"]["p99"]),
        "delivery P99": (one["delivery"]["p99"], other["delivery"]["p99"]),
    }
    return ", ".join(f"{name} {a / b:.2f}" if b else f"{name} ?" for name, (a, b) in pairs.items())


def felt(slow: Sequence[RunResult], without: Sequence[RunResult]) -> list[str]:
    """What the others feel of slow readers, by the medians: a sentence for each P99 that is too high, or that nobody can tell."""
    complaints = []
    for name in ("ack", "delivery"):
        one, other = median(slow)[name], median(without)[name]
        if not (one["count"] and other["count"]):
            complaints.append(f"Nothing can be said of the others' {name} P99: nothing was counted.")
        elif one["p99"] > max(FELT_RATIO * other["p99"], other["p99"] + FELT_MS):
            complaints.append(
                f"Slow readers are felt: the others' {name} P99 is {one['p99']:,.1f} ms with them and {other['p99']:,.1f} ms without; "
                f"{FELT_RATIO:g} times as much or {FELT_MS:g} ms more would pass."
            )
    return complaints


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_mb": round(psutil.virtual_memory().total / MB),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a line at a time
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
