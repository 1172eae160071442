"""The server under test: one that runs already, or `run.py` with stores of its own."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout

from app import settings
from app.settings import ROOT
from app.storage.embedded import EmbeddedServers, embedded_servers
from app.storage.migrate import migrate
from local.cluster import Shape, cluster
from local.node import NodeFailed
from local.ports import free_ports

READY_S = 60.0
STOP_S = 30.0
PROBE_S = 0.1
LOG_TAIL_CHARS = 3000
Step = Callable[[str], None]


class BenchError(Exception):
    """The benchmark cannot go on; the message says why in a sentence."""


@dataclass(frozen=True)
class Target:
    """Where to connect, and how to make users there."""

    url: str
    dsn: str
    secret: str
    pid: int | None
    """The server's process, when it can be measured and there is only one."""
    roles: Mapping[int, str] = field(default_factory=dict)
    """Process → role, where the roles are processes of their own."""
    gateways: Sequence[str] = ()
    """Their URLs; empty: the server's own."""
    nodes: Sequence[str] = ()
    """URLs of all processes, for their metrics; empty: the server's own."""

    @property
    def ws_urls(self) -> list[str]:
        """The WebSocket endpoints."""
        return [url.replace("http", "ws", 1) + "/ws" for url in self.gateways or (self.url,)]

    @property
    def metrics_urls(self) -> list[str]:
        """Where the processes tell about themselves."""
        return [f"{url}/metrics" for url in self.nodes or (self.url,)]

    @property
    def measured(self) -> Mapping[int, str]:
        """Process → role of everything that can be measured."""
        return self.roles or ({} if self.pid is None else {self.pid: "server"})

    def process(self, role: str) -> int | None:
        """The first process of a role, or the one that has all. Raises BenchError when the roles are others."""
        if self.roles and role not in self.roles.values():
            raise BenchError(
                f"No process of role {role!r} runs; there are {', '.join(sorted(set(self.roles.values())))}."
            )
        return next((pid for pid, each in self.roles.items() if each == role), self.pid)

    @property
    def api_url(self) -> str:
        """The HTTP API."""
        return self.url + "/api/v1"


@asynccontextmanager
async def own_stores(folder: Path, on_step: Step) -> AsyncIterator[EmbeddedServers]:
    """Embedded PostgreSQL and Valkey below `folder`, as a laptop has them, migrated."""
    config = settings.load()
    async with embedded_servers(folder, config.embedded, on_step=on_step) as stores:
        await migrate(
            stores.dsn,
            wait_s=config.embedded.start_timeout_s,
            connect_timeout_s=config.postgres.connect_timeout_s,
            timeout_s=config.embedded.start_timeout_s,
            on_step=on_step,
        )
        yield stores


@asynccontextmanager
async def own_server(
    stores: EmbeddedServers, folder: Path, overrides: Mapping[str, str], on_step: Step
) -> AsyncIterator[Target]:
    """`run.py serve` in a process of its own; `overrides` are environment variables. Raises BenchError when it does not start."""
    port, metrics_port = free_ports(2)
    secret = secrets.token_hex(32)
    environment = {
        **os.environ,
        "IM_DATA_DIR": str(folder),
        "IM_POSTGRES__DSN": stores.dsn,
        "IM_REDIS__URL": stores.redis_url,
        "IM_HTTP__PORT": str(port),
        "IM_METRICS__PORT": str(metrics_port),
        "IM_AUTH__SECRET": secret,
        "IM_LOG__LEVEL": "warning",
        "IM_LOG__FORMAT": "json",
        **overrides,
    }
    log_path = folder / "server.log"
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "run.py"), "serve", stdout=log, stderr=log, env=environment, cwd=ROOT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        on_step("Starting the server …")
        await _ready(url, process, log_path)
        yield Target(url, stores.dsn, secret, process.pid)
        if process.returncode is not None:
            raise BenchError(f"The server ended with code {process.returncode}: {_tail(log_path)}")
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def own_cluster(shape: Shape, folder: Path, overrides: Mapping[str, str], on_step: Step) -> AsyncIterator[Target]:
    """Roles in processes of their own, with stores of their own below `folder`."""
    environment = {"IM_LOG__LEVEL": "warning", "IM_LOG__FORMAT": "json", **overrides}
    config = settings.load()
    async with cluster(folder, shape, config.embedded, environment=environment, on_step=on_step) as running:
        on_step("Starting the roles …")
        try:
            await running.start()
        except NodeFailed as error:
            raise BenchError(str(error)) from None
        nodes = running.nodes.values()
        gateways = running.of_role("gateway")
        yield Target(
            running.url,
            running.dsn,
            running.secret,
            None,
            roles={node.pid: node.role for node in nodes},
            gateways=[node.url for node in gateways],
            nodes=[node.url for node in nodes],
        )
        for node in nodes:
            if not node.running:
                raise BenchError(f"{node.name} ended: {node.tail()}")


async def _ready(url: str, process: asyncio.subprocess.Process, log_path: Path) -> None:
    deadline = asyncio.get_running_loop().time() + READY_S
    async with ClientSession(timeout=ClientTimeout(total=5)) as session:
        while asyncio.get_running_loop().time() < deadline:
            if process.returncode is not None:
                raise BenchError(f"The server ended with code {process.returncode}: {_tail(log_path)}")
            try:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except (ClientError, TimeoutError):
                pass
            await asyncio.sleep(PROBE_S)
    raise BenchError(f"The server was not ready after {READY_S:g} s: {_tail(log_path)}")


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-LOG_TAIL_CHARS:].strip() or "it wrote nothing"
