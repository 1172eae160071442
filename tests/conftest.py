"""What every test gets: no settings from outside, no blocking calls on the event loop, real stores on demand."""

import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import pytest_asyncio
from blockbuster import BlockBuster, blockbuster_ctx

from app import log, settings
from app.settings import Settings
from app.storage.embedded import EmbeddedServers
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.postgres import Postgres
from app.storage.redis import Redis, connect
from tests.services import database_like, etcd, kafka, migrated_servers, valkey_to_break

MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory; what is made there gets random names
ROOM_BYTES = 4 << 30
"""For the stores of all workers; they use half a gigabyte."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "may_block: blocking calls of app/ on the event loop are allowed in this test")
    # The shell of a developer or of CI must not change what is tested; processes started by tests inherit this too.
    for name in [name for name in os.environ if name.startswith("IM_")]:
        del os.environ[name]
    os.environ["IM_ENV"] = "test"
    # Or each process that a test starts would compile everything anew, here and in the workers of pytest-xdist.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # A database is 300 files, and on a disk each of them costs up to a millisecond of CPU. Processes started by tests inherit this too.
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None
    # A shell that starts us in the background ignores Ctrl+C, and so would all that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Through the standard library, where pytest captures; plain tracebacks, which do not read files on the event loop.
    log.configure("debug", "json")
    logging.getLogger().handlers = []
    # A slow machine is no defect, and a failure elsewhere must be repeatable here.
    hypothesis.settings.register_profile("tests", deadline=None, print_blob=True)
    hypothesis.settings.load_profile("tests")


def pytest_sessionfinish() -> None:
    kafka.end()
    etcd.end()


class _Everything(frozenset[str]):
    """All function names."""

    def __contains__(self, name: object) -> bool:
        return True


MAY_BLOCK = (
    # Read once, before anything is served; so are the folders prepared.
    "app/settings.py",
    "app/web/templating.py",
    "app/web/web_app.py",
    *(
        f"app/storage/embedded/{name}.py"
        for name in ("folder", "launch", "leftovers", "postgres", "process", "servers", "valkey")
    ),
    # Looks for files of passwords and certificates at each connect, as libpq does.
    "asyncpg/connect_utils.py",
)


@pytest.fixture(autouse=True)
def blockbuster(request: pytest.FixtureRequest) -> Iterator[BlockBuster | None]:
    """A blocking call on the event loop that comes from app/ raises BlockingError; see also the mark `may_block`."""
    if request.node.get_closest_marker("may_block"):
        yield None
        return
    with blockbuster_ctx("app") as active:
        for function in active.functions.values():
            for path in MAY_BLOCK:
                function.can_block_in(path, _Everything())
        yield active


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers() -> AsyncIterator[EmbeddedServers]:
    """PostgreSQL and Valkey of this test process; ask for `dsn` and `redis_url` instead."""
    async with migrated_servers() as running:
        yield running


@pytest.fixture
async def dsn(servers: EmbeddedServers) -> AsyncIterator[str]:
    """A migrated database without rows, of this test alone."""
    async with database_like(servers.dsn) as address:
        yield address


@pytest.fixture
async def redis_url(servers: EmbeddedServers) -> str:
    """An empty Valkey that no other test uses meanwhile."""
    client = connect(servers.redis_url, pool_max=1, connect_timeout_s=5, command_timeout_s=5)
    await client.flushall()
    await client.aclose()
    return servers.redis_url


@pytest.fixture
def config() -> Settings:
    """The settings of `IM_ENV=test`."""
    return settings.load()


@pytest.fixture
async def postgres(dsn: str, config: Settings) -> AsyncIterator[Postgres]:
    """A pool on `dsn`."""
    limits: dict[str, Any] = {
        name: getattr(config.postgres, name) for name in ("connect_timeout_s", "command_timeout_s", "acquire_timeout_s")
    }
    pool = Postgres(dsn, pool_min=1, pool_max=8, **limits)
    await pool.start()
    yield pool
    await pool.stop()


@pytest.fixture
async def redis(redis_url: str, config: Settings) -> AsyncIterator[Redis]:
    """A client on `redis_url`."""
    client = connect(
        redis_url,
        pool_max=8,
        connect_timeout_s=config.redis.connect_timeout_s,
        command_timeout_s=config.redis.command_timeout_s,
    )
    yield client
    await client.aclose()


@pytest.fixture
async def breakable_valkey() -> AsyncIterator[ValkeyProcess]:
    """A Valkey of this test alone, to be stopped, frozen and started."""
    async with valkey_to_break() as valkey:
        yield valkey
