"""`make cluster`: a small cluster on this machine, one log for all, ended by Ctrl+C."""

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.markup import escape

from app import settings
from app.cli.progress import Progress
from app.cli.secret import dev_secret
from app.errors import ConfigError
from local.cluster import BrokerKind, Cluster, Ports, RegistryKind, Shape, cluster
from local.nginx import find_nginx
from local.node import NodeFailed

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_red", "bright_cyan", "bright_green")
METRICS_PORT = 9101
NGINX_PORT = 8443
RESTART_S = 1.0


class Log:
    """Lines of all nodes, each with the name of its node in a colour of its own."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._colours: dict[str, str] = {}

    def line(self, node: str, text: str) -> None:
        """Print one line of a node; events in JSON as text."""
        colour = self._colours.setdefault(node, COLOURS[len(self._colours) % len(COLOURS)])
        self._console.print(
            f"[{colour}]{node:<10}[/{colour}] {escape(_readable(text))}", highlight=False, soft_wrap=True
        )


def _readable(text: str) -> str:
    try:
        event: Any = json.loads(text)
    except ValueError:
        return text
    if not isinstance(event, dict) or "message" not in event:
        return text
    time, message = str(event.pop("@timestamp", ""))[11:19], event.pop("message")
    log = event.pop("log", None)
    level = log.get("level", "") if isinstance(log, dict) else event.pop("log.level", "")
    for known in ("ecs", "ecs.version", "service", "service.name"):
        event.pop(known, None)
    fields = " ".join(f"{key}={value}" for key, value in _flat(event))
    return f"{time} {level:<8} {message} {fields}".rstrip()


def _flat(event: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in event.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def main(
    broker: Annotated[
        BrokerKind, typer.Option(help="The log between gateways and consumers.")
    ] = BrokerKind.redis_streams,
    gateways: Annotated[int, typer.Option(min=1, max=8, help="Gateway processes.")] = 2,
    consumers: Annotated[int, typer.Option(min=1, max=8, help="Consumer processes.")] = 2,
    registry: Annotated[
        RegistryKind, typer.Option(help="Where gateways register; list: everybody is given a list of them.")
    ] = RegistryKind.list,
    port: Annotated[int, typer.Option(help="Port of the api; gateways take the ports after it.")] = 8080,
    metrics_port: Annotated[
        int, typer.Option(help="Port for metrics of the first process; the others take those after it.")
    ] = METRICS_PORT,
    nginx: Annotated[
        bool | None,
        typer.Option(help=f"Put Nginx in front, on https://localhost:{NGINX_PORT}.", show_default="if installed"),
    ] = None,
) -> None:
    """Run a small cluster on this machine until Ctrl+C: an api, gateways and consumers with real stores.

    Its data stay in .data/cluster. Kafka needs Java 17 and Maven; Redis Streams needs nothing.
    """
    config = settings.load()
    installed = find_nginx() is not None
    if nginx is None and not installed:
        sys.stderr.write(
            "magpie: Nginx is not installed, so there is no proxy in front (apt-get install nginx-light)\n"
        )
    shape = Shape(
        broker.value,
        gateways=gateways,
        consumers=consumers,
        registry=registry.value,
        nginx=installed if nginx is None else nginx,
    )
    ports = Ports(api=port, gateway=port + 1, metrics=metrics_port, nginx=NGINX_PORT)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(config, shape, ports))
    except (ConfigError, NodeFailed) as error:
        sys.stderr.write(f"magpie: {error}\n")
        sys.exit(1)


async def _run(config: settings.Settings, shape: Shape, ports: Ports) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    console = Console(stderr=True)
    folder: Path = config.data_dir / "cluster"
    log = Log(Console())
    with Progress(console) as progress:
        async with cluster(
            folder,
            shape,
            config.embedded,
            ports=ports,
            secret=await asyncio.to_thread(dev_secret, folder),
            environment={"IM_LOG__FORMAT": "json"},
            on_step=progress.step,
            on_line=log.line,
        ) as running:
            commands = await asyncio.to_thread(_write_environment, running)
            progress.step(f"Starting {', '.join(running.nodes)} …")
            starting = asyncio.create_task(running.start())
            stopping = asyncio.create_task(stopped.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                progress.ready(
                    running.nginx.url if running.nginx else f"http://localhost:{ports.api}", _hints(running) | commands
                )
                await _keep_running(running, stopping, log)
            else:
                starting.cancel()
            progress.step("Stopping …")


async def _keep_running(running: Cluster, stopping: "asyncio.Task[bool]", log: Log) -> None:
    """Until somebody wants it to end. A node that dies is started again, as an orchestrator would: so one may kill them and watch."""
    while not stopping.done():
        await asyncio.wait({stopping}, timeout=RESTART_S)
        for node in running.nodes.values():
            if not node.running and not stopping.done():
                log.line(node.name, f"ended with code {await node.ended()}; starting it again")
                await node.launch()


def _write_environment(running: Cluster) -> dict[str, str]:
    """What an operator's commands need to know, to be read by a shell; the hint that says so."""
    file = running.folder / "env"
    file.touch(mode=0o600)
    values = running.of_role("api")[0].environment
    file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(values.items())))
    return {"look": f"(. {os.path.relpath(file)} && {os.path.relpath(sys.executable)} run.py cluster status)"}


def _hints(running: Cluster) -> dict[str, str]:
    hints = {
        "gateways": " ".join(node.url for node in running.of_role("gateway")),
        "processes": " ".join(f"{node.name}:{node.pid}" for node in running.nodes.values()),
        "data": os.path.relpath(running.folder),
        "stop": "Ctrl+C",
    }
    if running.nginx is None:
        return hints
    python, certificate = os.path.relpath(sys.executable), os.path.relpath(running.nginx.certificate)
    return {
        "api": " ".join(node.url for node in running.of_role("api")),
        "chat": f"SSL_CERT_FILE={certificate} {python} run.py chat --url {running.url}",
        "browser": "warns of the certificate, which this machine made for itself",
        **hints,
    }


if __name__ == "__main__":
    typer.run(main)
