"""One server program: start it, see that it answers, start it again when it dies, stop it."""

import asyncio
import os
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import structlog

from app.errors import ConfigError
from app.storage.embedded.launch import DoesNotRun, Launcher
from app.storage.embedded.leftovers import end_leftovers

log = structlog.get_logger(__name__)

ENVIRONMENT = {"PATH": os.defpath, "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}
"""Nothing of ours: PGPORT and its like would change the server, and secrets do not belong there."""

PROBE_INTERVAL_S = 0.02
LOG_CHECK_S = 10.0
"""A log may outgrow its bound by what is written in this time."""
RESTART_MIN_S, RESTART_MAX_S = 0.1, 5.0
STOP_WAIT_S = 5.0
"""After each stop signal; a checkpoint of a busy laptop takes a second or two."""


class ServerProcess(ABC):
    """A server program that lives as long as we do.

    `start` raises ConfigError with one sentence when the server does not come up. `stop` returns when the process is
    gone; it may be called in any state. Neither may run twice at the same time.
    """

    title: ClassVar[str]
    program: ClassVar[str]
    stop_signals: ClassVar[Sequence[signal.Signals]]
    """From polite to final."""

    def __init__(
        self, launcher: Launcher, work_dir: Path, log_file: Path, *, log_max_bytes: int, start_timeout_s: float
    ) -> None:
        self._launcher = launcher
        self._work_dir = work_dir
        self._log_file = log_file
        self._log_max_bytes = log_max_bytes
        self._start_timeout_s = start_timeout_s
        self._process: asyncio.subprocess.Process | None = None

    @abstractmethod
    def _command(self) -> list[str]:
        """Program and arguments."""

    @abstractmethod
    def _clear(self) -> None:
        """Remove what a killed server left in the file system; no server runs when this is called."""

    @abstractmethod
    async def _answers(self) -> bool:
        """Whether the server takes requests now. Raises ConfigError when it never will."""

    async def start(self) -> None:
        """End what an earlier run left, start the program, return when it answers."""
        try:
            async with asyncio.timeout(self._start_timeout_s):
                offset = await asyncio.to_thread(self._prepare)
                self._process = process = await self._spawn(self._command())
                while process.returncode is None:
                    if await self._answers():
                        return
                    await asyncio.sleep(PROBE_INTERVAL_S)
        except TimeoutError:
            raise DoesNotRun(
                f"{self.title} was not ready after {self._start_timeout_s:g} s; see {self._log_file},"
                " or allow more with IM_EMBEDDED__START_TIMEOUT_S."
            ) from None
        reason = await asyncio.to_thread(self._reason_since, offset)
        raise DoesNotRun(f"{self.title} did not start: {reason}; see {self._log_file}.")

    def _prepare(self) -> int:
        """End and remove what an earlier run left; returns the size of the log."""
        ended = end_leftovers(self.program, self._work_dir, self.stop_signals[0])
        if ended:
            log.info("embedded_leftovers_ended", server=self.title, processes=ended)
        self._clear()
        self._trim_log()
        return self._log_size()

    def _log_size(self) -> int:
        return self._log_file.stat().st_size if self._log_file.exists() else 0

    async def keep_running(self) -> None:
        """Bound the log and start the server again whenever it ends by itself; runs until cancelled.

        Clients reconnect by themselves, so a crashed server is a short outage and not the end of the process.
        """
        while True:
            if self._process is None:
                raise RuntimeError("keep_running() before start()")
            try:
                exit_code = await asyncio.wait_for(self._process.wait(), LOG_CHECK_S)
            except TimeoutError:
                await asyncio.to_thread(self._trim_log)
            else:
                await self._start_again(exit_code)

    async def _start_again(self, exit_code: int) -> None:
        delay_s = RESTART_MIN_S
        while True:
            log.warning("embedded_server_ended", server=self.title, exit_code=exit_code, restart_in_s=delay_s)
            await asyncio.sleep(delay_s)
            try:
                await self.start()
            except ConfigError as error:
                log.error("embedded_server_not_restarted", server=self.title, reason=str(error))
                await self.stop()
                delay_s = min(delay_s * 2, RESTART_MAX_S)
            else:
                log.info("embedded_server_restarted", server=self.title)
                return

    async def stop(self) -> None:
        """Ask the server to end, insist, and at last kill it."""
        if self._process is None:
            return
        for stop_signal in self.stop_signals:
            with suppress(ProcessLookupError):
                self._process.send_signal(stop_signal)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_WAIT_S)
                return
        log.error("embedded_server_did_not_stop", server=self.title, pid=self._process.pid)

    async def _spawn(self, argv: list[str]) -> asyncio.subprocess.Process:
        """A session of its own: Ctrl+C must reach us only, or the stores would stop before the work is done."""
        try:
            descriptor = os.open(self._log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"Cannot write {self._log_file}: {error.strerror}.") from None
        try:
            return await asyncio.create_subprocess_exec(
                *self._launcher.command(argv, self.stop_signals[0].name.removeprefix("SIG")),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd=self._work_dir,
                env=ENVIRONMENT,
                start_new_session=True,
            )
        except OSError as error:
            raise DoesNotRun(f"Cannot run {argv[0]}: {error.strerror}.") from None
        finally:
            os.close(descriptor)

    def _trim_log(self) -> None:
        """Keep one older log. The server appends, so a truncated file goes on from its start."""
        if self._log_size() > self._log_max_bytes:
            shutil.copyfile(self._log_file, self._log_file.with_suffix(".log.1"))
            os.truncate(self._log_file, 0)

    def _reason_since(self, offset: int) -> str:
        """The line of the log, written since `offset`, that most likely says why the server ended."""
        with self._log_file.open("rb") as file:
            file.seek(offset)
            lines = file.read(65536).decode("utf-8", "replace").splitlines()
        lines = [line.strip() for line in lines if line.strip()]
        telling = [
            line for line in lines if any(word in line for word in ("FATAL", "PANIC", "rror", "Failed", "Can't"))
        ]
        line = (telling or lines or ["it ended without a word"])[-1]
        return line.split("FATAL:")[-1].strip().rstrip(".")
