"""One serving process from the first line on the terminal to the last."""

import asyncio
import gc
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack

import structlog
from aiohttp import web
from rich.console import Console

from app import __version__
from app.cli.listen import bind, refusal
from app.cli.progress import LoggedProgress, Progress
from app.cli.show import public_url
from app.cli.stores import check_folder, explained, open_stores
from app.lifecycle import Readiness
from app.metrics import Metrics
from app.open_files import raise_open_files, warn_of_few
from app.roles import build_app, drain
from app.sections import Collector
from app.settings import Settings
from app.web.deadline import HeaderDeadline
from app.web.health import Health

log = structlog.get_logger(__name__)

EXIT_FAILED = 1
EXIT_FORCED = 130
HANDLER_SHARE = 0.5
"""Of the time for stopping, what running requests get; the rest is for the parts behind them."""

DEFAULT_URL = "http://localhost:8080"
"""What `chat` finds by itself."""


class Stop:
    """Ends the serving task: at the first signal gracefully, at the second at once."""

    def __init__(self, task: "asyncio.Task[int]") -> None:
        self._task = task
        self.exit_code: int | None = None

    def on_signal(self) -> None:
        """Ask for the end; asked again, leave without another word. The stores end by themselves when we are gone."""
        if self.exit_code is not None:
            os._exit(EXIT_FORCED)
        self._end(0)

    def on_failure(self, what: str) -> None:
        """A part of the process died: a half-dead process is worse than a restarted one."""
        log.error("process_failed", part=what)
        self._end(EXIT_FAILED)

    async def clean_up(self, runner: web.AppRunner, timeout_s: float) -> None:
        """End what `runner` serves. What takes longer is cut, and the end is a failure: something may not have been written."""
        try:
            async with asyncio.timeout(timeout_s):
                await runner.cleanup()
        except TimeoutError:
            log.error("shutdown_deadline_passed", timeout_s=timeout_s)
            self.exit_code = EXIT_FAILED

    def _end(self, exit_code: int) -> None:
        """Whoever ends already goes on with that: to be cancelled again would skip a step of it."""
        if self.exit_code is None:
            self._task.cancel()
        self.exit_code = exit_code


async def serve(settings: Settings) -> int:
    """Start the stores and the role, serve until told to stop; returns the exit code. Raises ConfigError."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("serve() runs as a task")
    stop = Stop(task)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.on_signal)
    console = Console(stderr=True)
    progress = LoggedProgress(console) if settings.log.format == "json" else Progress(console)
    try:
        with progress:
            await _serve(settings, progress, stop)
    except asyncio.CancelledError:
        if stop.exit_code is None:
            raise
    return stop.exit_code or 0


async def _serve(settings: Settings, progress: Progress, stop: Stop) -> None:
    progress.step(f"Magpie {__version__}, role {settings.role}, environment {settings.env}")
    async with AsyncExitStack() as stack:
        check_folder(settings)
        files = raise_open_files()
        if settings.role in ("all", "gateway"):
            warn_of_few(files, settings.gateway.max_connections)
        # Bound first: a port in use is known before anything is started.
        public = stack.enter_context(bind(settings.http.host, settings.http.port, "IM_HTTP"))
        readiness, metrics = Readiness(), Metrics()
        if settings.metrics.port:
            # First to open and last to close: an orchestrator can ask what we are waiting for.
            private = stack.enter_context(bind(settings.metrics.host, settings.metrics.port, "IM_METRICS"))
            await _listen(stack, Health(readiness, metrics).private_app(), private, settings, "IM_METRICS", stop)
        http = settings.http.model_copy(update={"port": public.getsockname()[1]})
        settings = settings.model_copy(update={"http": http})

        def step(text: str) -> None:
            progress.step(text)
            readiness.expect("process", text)

        settings = await stack.enter_async_context(open_stores(settings, step))
        step("Starting the application …")
        app = build_app(settings, stop=stop.on_failure, readiness=readiness, metrics=metrics)
        await _listen(stack, app, public, settings, "IM_HTTP", stop)
        stack.push_async_callback(_drain, app, stop)
        _settle_collector(settings.collector)
        address = public_url(settings.http)
        readiness.clear("process")
        progress.ready(address, _hints(settings, address))
        stack.callback(step, "Stopping …")
        await asyncio.Event().wait()


def _settle_collector(collector: Collector) -> None:
    """What lives as long as the process is never looked at again; the rest seldom: a full collection stops the loop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*collector.thresholds)


async def _listen(
    stack: AsyncExitStack, app: web.Application, listener: socket.socket, settings: Settings, variables: str, stop: Stop
) -> None:
    """Start `app` and let it answer on `listener`; the end of both is put on the stack."""
    http = settings.http
    deadline = HeaderDeadline(http.header_timeout_s)
    app.middlewares.insert(0, deadline.middleware())
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=http.keepalive_timeout_s,
        shutdown_timeout=http.shutdown_timeout_s * HANDLER_SHARE,
    )
    stack.push_async_callback(stop.clean_up, runner, http.shutdown_timeout_s)
    with explained():
        await runner.setup()
    if runner.server is None:
        raise RuntimeError("a runner that is set up has a server")
    factory = deadline.guard(runner.server)
    try:
        server = await asyncio.get_running_loop().create_server(factory, sock=listener, backlog=http.backlog)
    except OSError as error:  # another process bound the same port as early as we did
        host, port = listener.getsockname()[:2]
        raise refusal(error, host, port, variables) from None
    stack.callback(server.close)


async def _drain(app: web.Application, stop: Stop) -> None:
    """While everything is still served; but what is half dead does not get better by waiting."""
    if stop.exit_code == 0:
        await drain(app)


def _hints(settings: Settings, address: str) -> dict[str, str]:
    """What to do now: label → text."""
    hints = {"api": f"{address}/api/docs"}
    if settings.role == "all":
        where = "" if address == DEFAULT_URL else f" --url {address}"
        hints["chat"] = f"{os.path.relpath(sys.executable)} run.py chat{where}"
    return hints | {"stop": "Ctrl+C"}
