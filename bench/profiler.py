"""Where the server's time goes: py-spy beside a run."""

import asyncio
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.server import BenchError

FORMATS = {".json": "speedscope", ".txt": "raw"}
WRITE_S = 60.0
"""To put the samples together and write them."""


@asynccontextmanager
async def profiled(path: Path | None, pid: int | None, duration_s: float) -> AsyncIterator[None]:
    """Sample the server while the block runs; costs it some percent of its speed."""
    if path is None:
        yield
        return
    if pid is None:
        raise BenchError("--profile needs --pid: the process of the server.")
    program = Path(sys.executable).with_name("py-spy")
    form = FORMATS.get(path.suffix, "flamegraph")
    options = ["--pid", str(pid), "--duration", str(math.ceil(duration_s)), "--format", form, "--rate", "250"]
    sampler = await asyncio.create_subprocess_exec(
        *(str(program), "record", *options, "--output", str(path)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield
        _, complaint = await asyncio.wait_for(sampler.communicate(), duration_s + WRITE_S)
        if sampler.returncode:
            raise BenchError(f"py-spy failed: {complaint.decode(errors='replace').strip()}")
    finally:
        if sampler.returncode is None:
            sampler.kill()
            await sampler.wait()
