"""A Kafka process that can be started, stopped, killed and frozen; it keeps its data and its port."""

import asyncio
import shutil
import signal
import subprocess
import time
from pathlib import Path

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from app.errors import ConfigError
from local.kafka.cache import archive, formatted, listens, server_command
from local.kafka.settings import Listener, properties
from local.ports import free_ports

START_TIMEOUT_S = 60.0
"""Two seconds on an idle machine; tests and other servers may share the cores."""
STOP_TIMEOUT_S = 10.0
LOOK_S = 0.05
ASK_TIMEOUT_MS = 2000


class KafkaServer:
    """One server with its data under `folder`; made anew there when the folder is empty.

    `start` raises ConfigError with one sentence when Java, Maven or the server fail. The other methods may be called in any state.
    The process ends with this one, even by SIGKILL, where `setpriv` exists (Linux).
    """

    def __init__(self, folder: Path, beside: Listener | None = None) -> None:
        self._folder = folder
        self._beside = beside
        self._port, self._controller_port = free_ports(2)
        self._log_file = folder / "kafka.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """`host:port` for clients; the same after a restart."""
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start on what is in the folder and return when it answers."""
        command = await asyncio.to_thread(self._prepare)
        with self._log_file.open("ab") as log:
            # Not asyncio's: a server of a whole test session outlives the event loop of a test that restarts it.
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - takes a millisecond; ours
                command,
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
            # Its controller has missed heartbeats of its broker meanwhile, and leaves it out for a moment.
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
        """It keeps its connections and answers nothing, until `thaw`."""
        self._signal(signal.SIGSTOP)

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
                raise ConfigError(f"Kafka did not start: {self.log_tail(3)}; see {self._log_file}.")
            if time.monotonic() > deadline:
                self.kill()
                raise ConfigError(f"Kafka was not ready after {START_TIMEOUT_S:g} s; see {self._log_file}.")
            await asyncio.sleep(LOOK_S)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _prepare(self) -> list[str]:
        """Everything that may take a while; returns the command line."""
        data = self._folder / "data"
        if not data.exists():
            data.mkdir(parents=True)
            for file in formatted().iterdir():
                shutil.copy(file, data)
        settings = self._folder / "server.properties"
        settings.write_text(properties(data, self._port, self._controller_port, self._beside))
        command = server_command(settings, f"-XX:SharedArchiveFile={archive()}")
        setpriv = shutil.which("setpriv")
        return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command

    async def _answers(self) -> bool:
        """Whether it takes requests and has become a member of its cluster."""
        client = AIOKafkaClient(bootstrap_servers=self.address, request_timeout_ms=ASK_TIMEOUT_MS)
        try:
            # aiokafka logs each attempt as an error; only look when somebody listens.
            if not await asyncio.to_thread(listens, self._port):
                return False
            await client.bootstrap()
            return bool(client.cluster.brokers())
        except KafkaError:
            return False
        finally:
            await client.close()
