"""Real PostgreSQL and Valkey for tests: small, quick to start, and gone with the process that started them.

Each test process (each pytest-xdist worker) runs its own pair. Both are there in about a second, and a test that empties
Valkey or listens to its channels does not meet the tests of another worker.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest

from app.errors import ConfigError
from app.sections import Embedded
from app.storage.embedded import EmbeddedServers, embedded_servers
from app.storage.embedded.folder import private_folder
from app.storage.embedded.launch import DoesNotRun, find_launcher
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.migrate import migrate
from local.etcd import EtcdServer
from local.kafka import KafkaServer, Listener
from local.kafka.cache import jars, java
from local.ports import free_ports
from local.server import LocalServer
from tests.certificates import Authority

OPTIONS = Embedded(
    start_timeout_s=30,
    postgres_max_connections=100,
    postgres_shared_buffers_mb=32,
    valkey_max_memory_mb=64,
    log_max_bytes=10_000_000,
)

Server = TypeVar("Server", bound=LocalServer)

_numbers = count(1)


@asynccontextmanager
async def migrated_servers() -> AsyncIterator[EmbeddedServers]:
    """Both servers with empty data. The database behind `dsn` is migrated; it is a template: use `database_like(dsn)`."""
    with server_folder() as folder:
        async with embedded_servers(folder / "data", OPTIONS, durable=False) as servers:
            await migrate(servers.dsn, wait_s=5, connect_timeout_s=5, timeout_s=30)
            yield servers


@asynccontextmanager
async def database_like(dsn: str) -> AsyncIterator[str]:
    """A copy of the database at `dsn`; dropped at the end, whoever may still be connected. Costs about 30 ms."""
    template = urlsplit(dsn).path.lstrip("/")
    name = f"test_{next(_numbers)}"
    admin = await asyncpg.connect(dsn, database="postgres")
    try:
        await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield urlsplit(dsn)._replace(path=f"/{name}").geturl()
        finally:
            await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await admin.close()


@asynccontextmanager
async def valkey_to_break() -> AsyncIterator[ValkeyProcess]:
    """A Valkey of one's own at `url`, running; the test may `stop()` and `start()` it, nothing else does."""
    with server_folder() as folder:
        launcher = find_launcher(folder)
        work_dir = private_folder(folder / "valkey", launcher.uid, launcher.gid)
        valkey = ValkeyProcess(
            launcher,
            work_dir,
            folder / "valkey.log",
            work_dir,
            max_memory_mb=OPTIONS.valkey_max_memory_mb,
            log_max_bytes=OPTIONS.log_max_bytes,
            start_timeout_s=OPTIONS.start_timeout_s,
        )
        try:
            await valkey.start()
            yield valkey
        finally:
            await valkey.stop()


@contextmanager
def server_folder() -> Iterator[Path]:
    """Not one of pytest's: their paths are long for sockets, and closed to the user the servers run as under root."""
    with tempfile.TemporaryDirectory(prefix="im-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            yield folder
        except DoesNotRun as error:
            # Skipping is for a machine on which the wheels do not run; CI must not pass because nothing was tested.
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))


async def need_kafka() -> None:
    """Skips where there is no Java or no Kafka to be had, fails in CI."""
    try:
        java()
        await asyncio.to_thread(jars)
    except ConfigError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Kafka cannot be tried here: {error}")


class SharedServer(Generic[Server]):
    """One server for all tests of this process: it takes seconds to start. The tests that need it are in one group of pytest-xdist."""

    def __init__(self, make: Callable[[Path], Server]) -> None:
        self._make = make
        self._server: Server | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def running(self) -> Server:
        """The server, started if it is not there; whatever a test did to it."""
        if self._server is None:
            self._folder = tempfile.TemporaryDirectory(prefix="im-", ignore_cleanup_errors=True)
            self._server = self._make(Path(self._folder.name))
        try:
            await self._server.ensure()
        except ConfigError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        return self._server

    def end(self) -> None:
        """Of the session."""
        if self._server is not None and self._folder is not None:
            self._server.kill()
            self._folder.cleanup()


class GuardedKafka(KafkaServer):
    """Has a second door at `secure_address`: with TLS, certificates for clients too, and a password."""

    user, password = "magpie", "only-for-tests"

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        _, _, both = self.authority.issue("server")
        (port,) = free_ports(1)
        self.secure_address = f"127.0.0.1:{port}"
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        settings = {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.file),
            "ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN",
            "plain.sasl.jaas.config": f'{login} user_{self.user}="{self.password}";',
        }
        super().__init__(folder, Listener("SASL_SSL", port, settings))


kafka = SharedServer(GuardedKafka)
etcd = SharedServer(EtcdServer)
