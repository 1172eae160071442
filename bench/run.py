"""One run of a scenario: connect, load, drain, check."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.history import check, load
from bench.plan import Begin, Connected, Finish, Member, Progress, Report, Result, Sent, Shape, WorkerPlan
from bench.processes import Worker, running_workers
from bench.profiler import profiled
from bench.results import Anomalies, Measured, RunResult, sum_up
from bench.scrape import means, scrape
from bench.server import BenchError, Target
from bench.usage import Use, measure

LEAD_S = 0.5
"""From the order to begin until the first send is due."""
AHEAD_S = 0.1
"""How long before the counted load begins the server's metrics and its use are read."""
SAMPLE_S = 1.0
DRAIN_S = 16.0
"""A second more than a message may take to an online client."""
SLACK_S = 60.0
"""How much longer than planned a worker may be silent before it is given up."""


@dataclass(frozen=True)
class Options:
    """How a scenario is run, beside its shape."""

    processes: int
    connect_rate: float
    connect_timeout_s: float
    readers_max: int
    check: bool
    seed: int
    drain_s: float = DRAIN_S
    """How long answers and deliveries may be outstanding after the load."""
    profile: Path | None = None
    """Where py-spy writes a profile of the server under load: .svg, .json (speedscope) or .txt (raw)."""
    profile_role: str = "gateway"
    """Whose process that is, where the roles have their own."""


class Watcher(Protocol):
    """Who shows the progress."""

    def phase(self, name: str, total: float) -> None:
        """A new phase begins; it ends at `total`."""

    def advance(self, done: float, progress: Progress) -> None:
        """How far the phase is, and the counts so far."""


class _Run:
    """The measuring side of a run."""

    def __init__(self, target: Target, workers: list[Worker], watcher: Watcher) -> None:
        self._target = target
        self._workers = workers
        self._watcher = watcher
        self.peak: dict[str, int] = {}
        self.unanswered: list[int] = []

    async def measure(self, *, thorough: bool = True) -> dict[str, Use]:
        """The use of each role now; remembers the highest memory."""
        workers = [worker.process.pid for worker in self._workers]
        use = await asyncio.to_thread(measure, self._target.measured, workers, thorough=thorough)
        for role, each in use.items():
            self.peak[role] = max(self.peak.get(role, 0), each.memory)
        return use

    def progress(self) -> Progress:
        """The counts of all workers together."""
        sums = Progress()
        for worker in self._workers:
            for name in Progress.__struct_fields__:
                setattr(sums, name, getattr(sums, name) + getattr(worker.progress, name))
        return sums

    async def gather(self, timeout_s: float, measure_of: str) -> list[Report]:
        """The next report of every worker, showing progress meanwhile by seconds or by a count of `Progress`."""
        since = time.monotonic()
        reports = asyncio.gather(*(worker.report(timeout_s) for worker in self._workers))
        try:
            while not reports.done():
                await asyncio.wait([reports], timeout=SAMPLE_S)
                progress = self.progress()
                done = time.monotonic() - since if measure_of == "seconds" else getattr(progress, measure_of)
                self._watcher.advance(done, progress)
                self.unanswered.append(progress.sent - progress.answered)
                await self.measure(thorough=False)
            return await reports
        finally:
            reports.cancel()

    async def load(self, shape: Shape, options: Options, measured: Measured) -> None:
        """Play the load and wait for its last delivery."""
        self._watcher.phase("warm up", shape.warm_up_s)
        begin = time.monotonic_ns() + round(LEAD_S * 1e9)
        for worker in self._workers:
            worker.order(Begin(begin))
        await asyncio.sleep(LEAD_S + shape.warm_up_s - AHEAD_S)
        self._watcher.phase("load", shape.duration_s)
        before = await scrape(self._target.metrics_urls)
        measured.start = await self.measure()
        since = time.monotonic()
        self.unanswered.clear()
        for report in await self.gather(shape.duration_s + SLACK_S, "seconds"):
            if not isinstance(report, Sent):
                raise BenchError(f"A generator process answered the order to begin with {report}.")
        measured.unanswered = list(self.unanswered)
        measured.drained = await self.drain(options.drain_s)
        measured.load_s = time.monotonic() - since
        measured.end = await self.measure()
        measured.peak = self.peak
        after, gateways = await scrape(self._target.metrics_urls), len(self._target.ws_urls)
        measured.server = means(before, after, measured.load_s, gateways)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until all is answered and delivered, at most `timeout_s`; returns whether it is."""
        self._watcher.phase("drain", timeout_s)
        since = time.monotonic()
        while (waited := time.monotonic() - since) < timeout_s:
            progress = self.progress()
            self._watcher.advance(waited, progress)
            if progress.answered >= progress.sent and progress.delivered >= progress.expected:
                return True
            await asyncio.sleep(0.1)
        return False


async def run_once(
    target: Target, members: list[Member], shape: Shape, options: Options, folder: Path, watcher: Watcher
) -> RunResult:
    """Connect `members`, play the load of `shape`, and measure. Histories are left in `folder`. Raises BenchError."""
    profiled_process = target.process(options.profile_role) if options.profile else None
    plans = _plans(target, members, shape, options, folder)
    async with running_workers(plans) as workers:
        run = _Run(target, workers, watcher)
        watcher.phase("connect", len(members))
        before = await run.measure()
        since = time.monotonic()
        connect_s = len(members) / options.connect_rate + options.connect_timeout_s + SLACK_S
        failures: Counter[str] = Counter()
        for report in await run.gather(connect_s, "connected"):
            if isinstance(report, Connected):
                failures.update(report.failures)
        measured = Measured(connect_s=time.monotonic() - since, empty=before, connected=await run.measure())
        if len(members) == failures.total():
            raise BenchError(f"Nobody could connect to {target.ws_urls}: {dict(failures)}.")
        async with profiled(options.profile, profiled_process, shape.load_s):
            await run.load(shape, options, measured)
        for worker in workers:
            worker.order(Finish())
        watcher.phase("read histories" if options.check else "close", SLACK_S)
        results = [
            report for report in await run.gather(SLACK_S + shape.load_s, "seconds") if isinstance(report, Result)
        ]
    anomalies = None
    if options.check:
        watcher.phase("check", 1)
        anomalies = await asyncio.to_thread(_judge, [Path(plan.history) for plan in plans])
    return sum_up(results, shape, measured, dict(failures), anomalies)


def _plans(target: Target, members: list[Member], shape: Shape, options: Options, folder: Path) -> list[WorkerPlan]:
    sizes = Counter(group for member in members if not member.slow for group in member.groups)
    return [
        WorkerPlan(
            number=number,
            ws_urls=target.ws_urls,
            api_url=target.api_url,
            members=members[number :: options.processes],
            group_sizes=dict(sizes),
            shape=shape,
            seed=options.seed,
            connect_rate=options.connect_rate / options.processes,
            connect_timeout_s=options.connect_timeout_s,
            history=str(folder / f"history-{number}.jsonl") if options.check else "",
            readers_max=options.readers_max,
        )
        for number in range(options.processes)
    ]


def _judge(paths: list[Path]) -> Anomalies:
    report = check(load(paths))
    return Anomalies(
        found={kind: report.counts[kind] for kind in sorted(report.kinds)},
        examples=[f"{each.kind}: {each.detail}" for each in report.examples],
        events=report.events,
        unread_groups=report.unread_groups,
        unjudged=report.unjudged,
    )
