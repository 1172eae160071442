"""Both servers together, for as long as a block runs."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.lifecycle import Supervisor
from app.sections import Embedded
from app.storage.embedded.folder import locked_folder, private_folder, socket_folder
from app.storage.embedded.launch import find_launcher
from app.storage.embedded.postgres import PostgresProcess
from app.storage.embedded.process import ServerProcess
from app.storage.embedded.valkey import ValkeyProcess

WATCHERS_STOP_S = 5.0


@dataclass(frozen=True)
class EmbeddedServers:
    """Where the servers answer; empty for one that was not wanted."""

    dsn: str = ""
    redis_url: str = ""


@asynccontextmanager
async def embedded_servers(
    data_dir: Path,
    options: Embedded,
    *,
    want_postgres: bool = True,
    want_redis: bool = True,
    on_step: Callable[[str], None] = lambda _: None,
    durable: bool = True,
) -> AsyncIterator[EmbeddedServers]:
    """Run the wanted servers under `data_dir` while the block runs; their data stay.

    `on_step` gets one line for people before and after each step. `durable=False` trades safety against power loss for
    speed, for tests; killed processes lose nothing either way. A server that dies is started again on the same address.
    Should this process be killed, Linux ends the servers at once; elsewhere, and for what is still ending, the next
    start does.

    Raises ConfigError (one sentence) when the folder is in use or cannot be written, or when a server does not start.
    """
    if not (want_postgres or want_redis):
        yield EmbeddedServers()
        return
    async with AsyncExitStack() as stack:
        data_dir = stack.enter_context(locked_folder(data_dir))
        launcher = await asyncio.to_thread(find_launcher, data_dir)
        logs = private_folder(data_dir / "logs", os.geteuid(), os.getegid())
        sockets = stack.enter_context(socket_folder(data_dir, launcher.uid, launcher.gid))
        running: list[ServerProcess] = []
        dsn = redis_url = ""
        if want_postgres:
            postgres = PostgresProcess(
                launcher,
                private_folder(data_dir / "postgres", launcher.uid, launcher.gid),
                logs / "postgres.log",
                sockets,
                max_connections=options.postgres_max_connections,
                shared_buffers_mb=options.postgres_shared_buffers_mb,
                durable=durable,
                log_max_bytes=options.log_max_bytes,
                start_timeout_s=options.start_timeout_s,
            )
            if postgres.is_new:
                on_step("Creating the PostgreSQL data (first start only) …")
                await postgres.create()
            await _start(postgres, stack, on_step)
            running.append(postgres)
            dsn = postgres.dsn
        if want_redis:
            valkey = ValkeyProcess(
                launcher,
                private_folder(data_dir / "valkey", launcher.uid, launcher.gid),
                logs / "valkey.log",
                sockets,
                max_memory_mb=options.valkey_max_memory_mb,
                log_max_bytes=options.log_max_bytes,
                start_timeout_s=options.start_timeout_s,
            )
            await _start(valkey, stack, on_step)
            running.append(valkey)
            redis_url = valkey.url
        watchers = Supervisor(on_death=lambda _: None)
        stack.push_async_callback(watchers.stop, WATCHERS_STOP_S)
        for server in running:
            watchers.spawn(server.keep_running(), f"embedded-{server.program}")
        yield EmbeddedServers(dsn, redis_url)


async def _start(server: ServerProcess, stack: AsyncExitStack, on_step: Callable[[str], None]) -> None:
    on_step(f"Starting {server.title} …")
    since = time.monotonic()
    stack.push_async_callback(server.stop)
    await server.start()
    on_step(f"{server.title} ready in {time.monotonic() - since:.1f} s")
