"""An Nginx in a folder of its own, configured by `run.py nginx`, with a self-signed certificate and no privileges."""

import asyncio
import os
import pwd
import re
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from app.errors import ConfigError
from app.settings import ROOT
from local.certificate import self_signed
from local.ports import HOST

START_S = 15.0
STOP_S = 10.0
LOOK_S = 0.02
SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin"
"""Where Debian puts it, and whither the PATH of people does not lead."""
HTTP2_DIRECTIVE = (1, 25, 1)
WEB_FOLDER = ROOT / "frontend" / "dist"
PER_ADDRESS = 50_000
"""Everybody on this machine has the same address."""


def find_nginx() -> str | None:
    """The program, where it is installed."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}")


class Nginx:
    """Serves https://localhost:PORT in front of a cluster on this machine, and if `http_port` is not 0 redirects to it from there.

    Methods raise ConfigError with one sentence when Nginx is missing or refuses. The process ends with this one, even by SIGKILL, where
    `setpriv` exists (Linux).
    """

    def __init__(self, folder: Path, port: int, http_port: int = 0) -> None:
        self.folder = folder.resolve()
        self.port = port
        self.http_port = http_port
        self.certificate = self.folder / "cert.pem"
        self._config = self.folder / "nginx.conf"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"https://localhost:{self.port}"

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    async def configure(
        self,
        apis: Sequence[str],
        gateways: Mapping[str, str],
        environment: Mapping[str, str],
        options: Sequence[str] = (),
    ) -> None:
        """Write the configuration for these addresses (`host:port`), with the settings of an api and more options of `run.py nginx`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        key = self.folder / "key.pem"
        await asyncio.to_thread(self_signed, self.certificate, key)
        values = {
            "certificate": self.certificate,
            "key": key,
            "listen": HOST,
            "https-port": self.port,
            "http-port": self.http_port,
            "state": self.folder,
            "output": self._config,
            "per-address": PER_ADDRESS,
        }
        if (WEB_FOLDER / "index.html").exists():
            values["web-folder"] = WEB_FOLDER
        if os.geteuid() == 0:
            # Its workers must be able to read the checkout, wherever that is.
            values["user"] = pwd.getpwuid(0).pw_name
        arguments = [f"--{name}={value}" for name, value in values.items()]
        arguments += [f"--api={address}" for address in apis]
        arguments += [f"--gateway={node}={address}" for node, address in gateways.items()]
        if await self._version() >= HTTP2_DIRECTIVE:
            arguments.append("--http2-directive")
        await _run([sys.executable, str(ROOT / "run.py"), "nginx", *arguments, *options], {**os.environ, **environment})

    async def check(self) -> str:
        """Let Nginx read the configuration; returns what it says about it."""
        return await _run([*self._command(), "-t"])

    async def start(self) -> None:
        """Start, and return when it accepts connections."""
        await self.check()
        setpriv = shutil.which("setpriv")
        # TERM, since the workers of a master that was killed would live on.
        bound = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
        with (self.folder / "nginx.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *bound,
                *self._command(),
                "-g",
                "daemon off;",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not await _accepts(self.port):
            if not self.running or time.monotonic() > deadline:
                raise ConfigError(f"Nginx did not start; see {self.folder}/nginx.log and error.log.")
            await asyncio.sleep(LOOK_S)

    async def reload(self) -> None:
        """Read the configuration again; returns when new workers serve. The old ones go on with the sockets they have."""
        await self.check()
        before = set(self.workers())
        self._signal(signal.SIGHUP)
        deadline = time.monotonic() + START_S
        while not set(self.workers()) - before:
            if not self.running or time.monotonic() > deadline:
                raise ConfigError(f"Nginx did not reload; see {self.folder}/error.log.")
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """End it and whatever is connected, in any state."""
        if self._process is None or self._process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            for worker in self.workers():
                os.kill(worker, signal.SIGKILL)
            self._process.kill()
            await self._process.wait()

    def workers(self) -> list[int]:
        """Process ids of its workers, those of earlier configurations included."""
        if self._process is None:
            return []
        try:
            return [child.pid for child in psutil.Process(self._process.pid).children()]
        except psutil.NoSuchProcess:
            return []

    async def _version(self) -> tuple[int, ...]:
        said = await _run([self._program(), "-v"])
        found = re.search(r"nginx/([0-9.]+)", said)
        return tuple(map(int, found[1].split("."))) if found else ()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise ConfigError("Nginx was never started.")
        self._process.send_signal(number)

    def _program(self) -> str:
        program = find_nginx()
        if program is None:
            raise ConfigError("Nginx is not installed; on Debian and Ubuntu: apt-get install nginx-light.")
        return program

    def _command(self) -> list[str]:
        return [self._program(), "-p", str(self.folder), "-c", str(self._config), "-e", str(self.folder / "error.log")]


async def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What it prints. Raises ConfigError with that, if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )
    output = (await process.communicate())[0].decode(errors="replace").strip()
    if process.returncode:
        raise ConfigError(output)
    return output


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True
