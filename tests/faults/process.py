"""`run.py` as people start it: a process of its own with embedded stores, to be killed and started again on the same folder and port."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from app.settings import ROOT
from app.storage.redis import Redis, connect
from tests.services import server_folder

READY_S = 40.0
EXIT_S = 30.0
LOOK_S = 0.02
LOG_TAIL_CHARS = 2000
SECRET = "f" * 32

LIMITS = {
    "IM_LIMITS__REGISTER_PER_MINUTE": "100000",
    "IM_LIMITS__LOGIN_PER_MINUTE": "100000",
    "IM_LIMITS__SEND_PER_MINUTE": "1000000",
    "IM_LIMITS__API_PER_MINUTE": "1000000",
    "IM_LIMITS__FRAMES_PER_SECOND": "1000",
}
"""Limits are not what is tested here."""


class ServerProcess:
    """One data folder and one port, and whichever process serves them now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log_file = folder / "server.log"
        self.secret = SECRET
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def dsn(self) -> str:
        return f"postgresql://magpie@/magpie?host={self.folder}/data/run&port=5432"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, **overrides: str) -> float:
        """Start and wait until it is ready; `overrides` are environment variables. Returns the seconds that took."""
        since = time.monotonic()
        await self.launch(**overrides)
        await self.until_ready(READY_S)
        return time.monotonic() - since

    async def launch(self, **overrides: str) -> None:
        """Start, and do not wait."""
        assert self._process is None or self._process.returncode is not None, "it runs already"
        environment = {
            **os.environ,
            "IM_ENV": "test",
            "IM_DATA_DIR": str(self.folder / "data"),
            "IM_HTTP__PORT": str(self.port),
            "IM_METRICS__PORT": "0",
            "IM_AUTH__SECRET": self.secret,
            **LIMITS,
            **overrides,
        }
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(ROOT / "run.py"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=ROOT,
                start_new_session=True,
            )

    async def ready(self) -> tuple[int, Any]:
        """(status, body) of /readyz; (0, None) when nobody answers."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http,
                http.get(f"{self.url}/readyz") as answer,
            ):
                return answer.status, await answer.json()
        except (aiohttp.ClientError, TimeoutError):
            return 0, None

    async def until_ready(self, within_s: float) -> float:
        """Wait for /readyz to say ok; returns how long that took."""
        return await self._until_status(200, within_s)

    async def until_not_ready(self, within_s: float) -> float:
        """Wait for /readyz to say that something is missing; returns how long that took."""
        return await self._until_status(503, within_s)

    async def _until_status(self, status: int, within_s: float) -> float:
        since = time.monotonic()
        while (answer := await self.ready())[0] != status:
            assert self._process is not None and self._process.returncode is None, f"the server ended: {self.tail()}"
            waited = time.monotonic() - since
            assert waited < within_s, f"/readyz says {answer} after {waited:.0f} s: {self.tail()}"
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - since

    async def kill(self, *, group: bool) -> None:
        """SIGKILL, to the process alone or to its whole group; returns when it is gone."""
        assert self._process is not None
        (os.killpg if group else os.kill)(self._process.pid, signal.SIGKILL)
        await self.gone()

    async def gone(self, within_s: float = EXIT_S) -> None:
        """Wait for the end of a process that was killed or kills itself."""
        assert self._process is not None
        async with asyncio.timeout(within_s):
            code = await self._process.wait()
        assert code == -signal.SIGKILL, f"the server ended with code {code}: {self.tail()}"

    async def stop(self) -> None:
        """End it politely; whatever state it is in."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), EXIT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise

    def tail(self) -> str:
        """The end of what the server logged."""
        return self.log_file.read_text(errors="replace")[-LOG_TAIL_CHARS:]

    # Its stores

    @asynccontextmanager
    async def valkey(self) -> AsyncIterator[Redis]:
        """A client on the embedded Valkey."""
        url = f"unix://{self.folder}/data/run/valkey.sock?db=0"
        client = connect(url, pool_max=2, connect_timeout_s=5, command_timeout_s=5)
        try:
            yield client
        finally:
            await client.aclose()

    def store_processes(self, program: str) -> list[psutil.Process]:
        """`postgres` with all its children, or `valkey-server`; the first is the one the server started."""
        for child in psutil.Process(self.pid).children(recursive=True):
            if child.name() == program:
                return [child, *child.children(recursive=True)]
        raise AssertionError(f"no {program} runs below process {self.pid}")


def freeze(processes: list[psutil.Process]) -> None:
    """Stop the processes where they are."""
    for process in processes:
        process.suspend()


def thaw(processes: list[psutil.Process]) -> None:
    """Let them go on."""
    for process in reversed(processes):
        if process.is_running():
            process.resume()


@asynccontextmanager
async def a_server() -> AsyncIterator[ServerProcess]:
    """A server on a new folder, not started; stopped at the end."""
    with server_folder() as folder:
        server = ServerProcess(folder)
        try:
            yield server
        finally:
            await server.stop()
