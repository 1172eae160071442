"""One process of a cluster on this machine: `run.py` with a role, to be started, killed, frozen and started again."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from app.settings import ROOT

READY_S = 60.0
"""With stores that still start, on a machine that is busy."""
EXIT_S = 30.0
LOOK_S = 0.02
ASK_S = 2.0
LOG_TAIL_CHARS = 3000

OnLine = Callable[[str, str], None]
"""Called with the node's name and one line of its output."""


class NodeFailed(Exception):
    """The process did not do what it should; the message says what, and ends with its log."""


class Node:
    """One name, role and port, and whichever process serves them now. `environment` holds `IM_…` variables."""

    def __init__(
        self, name: str, role: str, port: int, environment: Mapping[str, str], log_file: Path, on_line: OnLine | None
    ) -> None:
        self.name = name
        self.role = role
        self.port = port
        self.log_file = log_file
        self.environment = environment
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it serves HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that runs, or ran last."""
        if self._process is None:
            raise NodeFailed(f"{self.name} was never started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    async def start(self, **overrides: str) -> float:
        """Start and wait until it is ready; `overrides` are environment variables. Returns the seconds that took."""
        since = time.monotonic()
        await self.launch(**overrides)
        await self.until_ready()
        return time.monotonic() - since

    async def launch(self, **overrides: str) -> None:
        """Start, and do not wait."""
        if self.running:
            raise NodeFailed(f"{self.name} runs already")
        # It ends with this process, even by SIGKILL, where the program exists (Linux).
        setpriv = shutil.which("setpriv")
        command = [sys.executable, str(ROOT / "run.py"), "serve"]
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *([setpriv, "--pdeathsig", "KILL"] if setpriv else []),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log if self._on_line is None else asyncio.subprocess.PIPE,
                stderr=log if self._on_line is None else asyncio.subprocess.STDOUT,
                env={**os.environ, **self.environment, **overrides},
                cwd=ROOT,
                # Ctrl+C is for the process that looks after us, which stops us in order.
                start_new_session=True,
            )
        if self._on_line is not None:
            self._reader = asyncio.create_task(self._read(self._on_line))

    async def _read(self, on_line: OnLine) -> None:
        stream = self._process.stdout if self._process else None
        while stream is not None and (line := await stream.readline()):
            on_line(self.name, line.decode(errors="replace").rstrip())

    async def ready(self) -> tuple[int, Any]:
        """(status, body) of /readyz; (0, None) when nobody answers."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_S)) as http,
                http.get(f"{self.url}/readyz") as answer,
            ):
                return answer.status, await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            return 0, None

    async def until_ready(self, within_s: float = READY_S) -> float:
        """Wait for /readyz to say ok; returns how long that took. Raises NodeFailed."""
        return await self._until_status(200, within_s)

    async def until_not_ready(self, within_s: float) -> float:
        """Wait for /readyz to say that something is missing; returns how long that took. Raises NodeFailed."""
        return await self._until_status(503, within_s)

    async def _until_status(self, status: int, within_s: float) -> float:
        since = time.monotonic()
        while (answer := await self.ready())[0] != status:
            if not self.running:
                raise NodeFailed(f"{self.name} ended: {self.tail()}")
            waited = time.monotonic() - since
            if waited > within_s:
                raise NodeFailed(f"/readyz of {self.name} says {answer} after {waited:.0f} s: {self.tail()}")
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - since

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP freezes, SIGCONT lets go on."""
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.signal(signal.SIGKILL)
        await self.gone()

    async def gone(self, within_s: float = EXIT_S) -> None:
        """Wait for the end of a process that was killed or kills itself. Raises NodeFailed when it ended otherwise."""
        code = await self.ended(within_s)
        if code != -signal.SIGKILL:
            raise NodeFailed(f"{self.name} ended with code {code}: {self.tail()}")

    async def ended(self, within_s: float = EXIT_S) -> int:
        """Wait for its end; the exit code, negative for a signal. Raises TimeoutError."""
        if self._process is None:
            raise NodeFailed(f"{self.name} was never started")
        code = await asyncio.wait_for(self._process.wait(), within_s)
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=1)
        return code

    async def stop(self) -> None:
        """End it politely, whatever state it is in; by force when it does not listen."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            await self.ended()
        except TimeoutError:
            await self.kill()
            raise NodeFailed(f"{self.name} did not end within {EXIT_S:g} s of SIGTERM: {self.tail()}") from None

    def tail(self) -> str:
        """The end of what it logged."""
        if not self.log_file.exists():
            return ""
        return self.log_file.read_text(errors="replace")[-LOG_TAIL_CHARS:]
