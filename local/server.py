"""A server process that can be started, stopped, killed and frozen, and keeps its data and its port."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from app.errors import ConfigError

START_TIMEOUT_S = 60.0
"""Two seconds for the slowest on an idle machine; tests and other servers may share the cores."""
STOP_TIMEOUT_S = 10.0
LOOK_S = 0.05


class LocalServer(ABC):
    """One server with its data under `folder`; made anew there when the folder is empty.

    `start` raises ConfigError with one sentence when a program is missing or the server fails. The other methods may be called in any
    state. The process ends with this one, even by SIGKILL, where `setpriv` exists (Linux).
    """

    name: str

    def __init__(self, folder: Path) -> None:
        # The process runs in it.
        self._folder = folder.absolute()
        self._log_file = folder / f"{self.name.lower()}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def address(self) -> str:
        """For clients; the same after a restart."""

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Everything that may take a while; returns the command line. Blocks, and may raise ConfigError."""

    @abstractmethod
    async def _answers(self) -> bool:
        """Whether it serves."""

    async def start(self) -> None:
        """Start on what is in the folder and return when it answers."""
        command = await asyncio.to_thread(self._prepare)
        setpriv = shutil.which("setpriv")
        with self._log_file.open("ab") as log:
            # Not asyncio's: a server of a whole test session outlives the event loop of a test that restarts it.
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - takes a millisecond; ours
                [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                start_new_session=True,
            )
        await self._until_it_answers(self._process)

    async def ensure(self) -> None:
        """Start it unless it runs, thaw it if it is frozen, and return when it answers."""
        if self._process is None or self._process.poll() is not None:
            await self.start()
        else:
            self.thaw()
            # Its parts have missed heartbeats of each other meanwhile.
            await self._until_it_answers(self._process)

    async def stop(self) -> None:
        """End it in order: it hands its work over and closes its files."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while self._process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - another process
                await asyncio.sleep(LOOK_S)
        self.kill()

    def kill(self) -> None:
        """End it as a crash of the process would: what the kernel has of its files stays. Returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections and answers nothing until `thaw`. Returns when it stands still; on a busy machine that takes a while."""
        self._signal(signal.SIGSTOP)
        if self._process is not None:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Go on where it was frozen."""
        self._signal(signal.SIGCONT)

    def log_tail(self, lines: int = 30) -> str:
        """The end of its log, for the message of a failure."""
        if not self._log_file.exists():
            return ""
        with self._log_file.open("rb") as file:
            file.seek(max(0, self._log_file.stat().st_size - 65536))
            return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])

    async def _until_it_answers(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await self._answers():
            if process.poll() is not None:
                raise ConfigError(f"{self.name} did not start: {self.log_tail(3)}; see {self._log_file}.")
            if time.monotonic() > deadline:
                self.kill()
                raise ConfigError(f"{self.name} was not ready after {START_TIMEOUT_S:g} s; see {self._log_file}.")
            await asyncio.sleep(LOOK_S)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
