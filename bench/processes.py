"""The generator's processes, seen from the process that measures."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from app.settings import ROOT
from bench.plan import Command, Progress, Report, WorkerPlan
from bench.server import BenchError

LINE_MAX_BYTES = 1 << 28
"""A result holds every latency that occurred, as counts."""


class Worker:
    """A worker process and what it has reported."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.progress = Progress()
        self._reports: asyncio.Queue[Report | None] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        decoder = msgspec.json.Decoder(Report)
        stdout = self.process.stdout
        while stdout and (line := await stdout.readline()):
            report = decoder.decode(line)
            if isinstance(report, Progress):
                self.progress = report
            else:
                self._reports.put_nowait(report)
        self._reports.put_nowait(None)

    def order(self, message: Command | WorkerPlan) -> None:
        """Send it a line."""
        if self.process.stdin:
            self.process.stdin.write(msgspec.json.encode(message) + b"\n")

    async def report(self, timeout_s: float) -> Report:
        """Its next report but progress. Raises BenchError when none comes."""
        try:
            report = await asyncio.wait_for(self._reports.get(), timeout_s)
        except TimeoutError:
            raise BenchError(f"A generator process reported nothing for {timeout_s:.0f} s.") from None
        if report is None:
            raise BenchError(
                f"A generator process ended early, code {await self.process.wait()}; see its output above."
            )
        return report

    async def stop(self) -> None:
        """End it, if it still runs."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(self._reader, return_exceptions=True)


@asynccontextmanager
async def running_workers(plans: Sequence[WorkerPlan]) -> AsyncIterator[list[Worker]]:
    """Worker processes for these plans; none is left after the block."""
    workers: list[Worker] = []
    try:
        for plan in plans:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_MAX_BYTES,
                cwd=ROOT,
            )
            workers.append(Worker(process))
            workers[-1].order(plan)
        yield workers
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))
