"""Tables and progress for people."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from bench.plan import Progress
from bench.results import RunResult, median
from bench.scrape import COUNTED, PER_GATEWAY

LATENCY_FIELDS = ("p50", "p90", "p99", "p99_9", "max")

DISTURBED_PERCENT = 20
"""Other processes above this share of a core are marked: figures of such a run say little."""


class Screen:
    """Shows a run on the terminal; plain lines where there is none."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._bar = ProgressBar(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[counts]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(title, total=None, counts="")

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Take it away."""
        self._bar.stop()

    def step(self, text: str) -> None:
        """A line about what is being prepared."""
        self.phase(text, 0)

    def phase(self, name: str, total: float) -> None:
        """A new phase."""
        if not self._console.is_terminal:
            self._console.print(f"{self._title}: {name}")
        self._bar.reset(self._task, total=total or None, description=f"{self._title}: {name}")

    def advance(self, done: float, progress: Progress) -> None:
        """Move the bar and show the counts."""
        counts = f"{progress.connected} connected"
        if progress.sent:
            counts += f", {progress.sent} sent, {progress.acked} acked, {progress.delivered} delivered"
        self._bar.update(self._task, completed=done, counts=counts)


def table(title: str, runs: Sequence[RunResult]) -> Table:
    """Rows of figures; a column for each run and one for the median."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("figure")
    for number in range(1, len(runs) + 1):
        shown.add_column(f"run {number}" if len(runs) > 1 else "result", justify="right")
    columns: list[dict[str, Any]] = [msgspec.to_builtins(run) for run in runs]
    if len(runs) > 1:
        shown.add_column("median", justify="right", style="bold")
        columns.append(median(runs))

    def row(name: str, value: Callable[[dict[str, Any]], str], *, bad: bool = False) -> None:
        shown.add_row(name, *(value(column) for column in columns), style="red" if bad else None)

    row("connected", lambda c: f"{c['connected']:,.0f} in {c['connect_s']:.1f} s")
    row("connect, p50 / p99, ms", lambda c: f"{c['connect']['p50']:,.1f} / {c['connect']['p99']:,.1f}")
    if any(run.sent for run in runs):
        _load(row)
    for role in _roles(columns, "cpu_us_per_message"):
        row(f"CPU per message, {role}, µs", _number("cpu_us_per_message", role))
    for role in _roles(columns, "cpu_percent"):
        row(f"CPU, {role}, % of a core", _number("cpu_percent", role, 1))
    disturbed = any(run.cpu_percent_others > DISTURBED_PERCENT for run in runs)
    row("CPU, others, % of a core", lambda c: f"{c['cpu_percent_others']:,.1f}", bad=disturbed)
    for role in _roles(columns, "memory_mb"):
        row(f"memory, {role}, MB", _number("memory_mb", role))
    for role in _roles(columns, "memory_connected_mb"):
        if role in ("server", "gateway"):
            row(f"memory when connected, {role}, MB", _number("memory_connected_mb", role))
    for series in _roles(columns, "server"):
        unit = ", kB/s a gateway" if series.startswith(PER_GATEWAY) else "" if series in COUNTED else ", ms"
        row(f"{series.replace('_', ' ')}{unit} (count)", _mean(series))
    _trouble(row, columns, runs)
    return shown


def _load(row: Callable[..., None]) -> None:
    row("messages acked / sent", lambda c: f"{c['acked']:,.0f} / {c['sent']:,.0f}")
    row("delivered / expected", lambda c: f"{c['delivered']:,.0f} / {c['expected']:,.0f}")
    row("messages per s", lambda c: f"{c['messages_per_s']:,.0f}")
    row("deliveries per s", lambda c: f"{c['deliveries_per_s']:,.0f}")
    row("ack in the warm-up (not counted), p50 / p99 / max, ms", _warm_up)
    for name, title_ in (("ack", "ack"), ("delivery", "delivery"), ("late", "generator late")):
        for part in LATENCY_FIELDS:
            row(
                f"{title_} {part.replace('_', '.')}, ms",
                lambda c, n=name, p=part: f"{c[n][p]:,.1f}",
            )
    row(
        "unanswered, first half / second half / most",
        lambda c: " / ".join(f"{c['unanswered'][part]:,.0f}" for part in ("first_half", "second_half", "max")),
    )


def _warm_up(column: dict[str, Any]) -> str:
    found = column["warm_up"]
    return f"{found['p50']:,.1f} / {found['p99']:,.1f} / {found['max']:,.1f}"


def _trouble(row: Callable[..., None], columns: list[dict[str, Any]], runs: Sequence[RunResult]) -> None:
    for name in ("connect_failures", "errors", "closed", "pull_failures"):
        for key in _roles(columns, name):
            row(f"{name.replace('_', ' ')}: {key}", _number(name, key), bad=True)
    for name in ("not_sent", "gaps", "pulled"):
        if any(getattr(run, name) for run in runs):
            row(name.replace("_", " "), lambda c, n=name: f"{c[n]:,.0f}", bad=name != "pulled")
    if not all(run.drained for run in runs):
        row("drained", lambda c: {True: "yes", False: "no"}.get(c.get("drained"), ""), bad=True)
    if any(run.anomalies for run in runs):
        judged = [run.anomalies for run in runs if run.anomalies]
        for kind in sorted({kind for each in judged for kind in each.found}):
            row(f"anomalies: {kind}", lambda c, k=kind: f"{(_history(c).get('found') or {}).get(k, 0):,.0f}", bad=True)
        for name in ("unread_groups", "unjudged"):
            if any(getattr(each, name) for each in judged):
                row(f"history: {name.replace('_', ' ')}", lambda c, n=name: f"{_history(c).get(n, 0):,.0f}", bad=True)
        if all(each.clean for each in judged):
            row("anomalies", lambda c: f"none in {_history(c).get('events', 0):,.0f} events")


def _history(column: dict[str, Any]) -> dict[str, Any]:
    return column.get("anomalies") or {}


def _mean(series: str) -> Callable[[dict[str, Any]], str]:
    def text(column: dict[str, Any]) -> str:
        found = column["server"].get(series)
        return f"{found['mean']:,.1f} ({found['count']:,.0f})" if found else ""

    return text


def _roles(columns: Sequence[dict[str, Any]], name: str) -> list[str]:
    return sorted({key for column in columns for key in column.get(name) or {}})


def _number(name: str, key: str, digits: int = 0) -> Callable[[dict[str, Any]], str]:
    return lambda column: f"{(column.get(name) or {}).get(key, 0):,.{digits}f}"
