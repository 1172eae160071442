"""Migrations on a real PostgreSQL, and the first contact with both stores: each failure is one sentence without secrets."""

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from app.errors import ConfigError
from app.storage.embedded import EmbeddedServers
from app.storage.migrate import migrate
from app.storage.reach import reach_postgres, reach_redis

# Starting is allowed to block: nothing is served yet.
pytestmark = pytest.mark.may_block

PASSWORD = "geheim%21wort"


@pytest.fixture
async def dsn(servers: EmbeddedServers) -> AsyncIterator[str]:
    """An empty database of its own."""
    name = f"test_{uuid.uuid4().hex}"
    admin = await asyncpg.connect(servers.dsn)
    await admin.execute(f"CREATE DATABASE {name}")
    yield servers.dsn.replace("/magpie?", f"/{name}?")
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def run(dsn: str, folder: Path | None = None, steps: list[str] | None = None) -> int:
    append = steps.append if steps is not None else lambda _: None
    options = {} if folder is None else {"folder": folder}
    return await migrate(dsn, wait_s=0, connect_timeout_s=5, timeout_s=30, on_step=append, **options)


def write(folder: Path, name: str, sql: str) -> None:
    (folder / name).write_text(f"-- migrate:up\n{sql}\n-- migrate:down\n")


async def tables(dsn: str) -> set[str]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    finally:
        await connection.close()
    return {row["relname"] for row in rows}


async def test_the_shipped_schema_applies_once(dsn: str) -> None:
    steps: list[str] = []
    assert await run(dsn, steps=steps) > 0
    assert any(step.startswith("Applied: 0001_") for step in steps)
    assert {"users", "groups", "messages", "worker_leases"} <= await tables(dsn)
    steps.clear()
    assert await run(dsn, steps=steps) == 0
    assert steps == []


async def test_processes_that_start_at_once_do_not_disturb_each_other(dsn: str) -> None:
    counts = await asyncio.gather(*(run(dsn) for _ in range(4)))
    assert max(counts) > 0
    assert "users" in await tables(dsn)


async def test_a_database_ahead_of_the_program_is_refused(dsn: str, tmp_path: Path) -> None:
    write(tmp_path, "0001_a.sql", "CREATE TABLE a (i int);")
    write(tmp_path, "0002_b.sql", "CREATE TABLE b (i int);")
    assert await run(dsn, tmp_path) == 2
    (tmp_path / "0002_b.sql").unlink()
    with pytest.raises(ConfigError, match=r"The database is at migration 2, this program knows only 1; run the newer"):
        await run(dsn, tmp_path)


async def test_a_failing_migration_is_one_sentence_and_changes_nothing(dsn: str, tmp_path: Path) -> None:
    write(tmp_path, "0001_a.sql", "CREATE TABLE a (i int);")
    write(tmp_path, "0002_b.sql", "CREATE TABLE b (i int); CREATE TABLE a (i int);")
    with pytest.raises(ConfigError, match=r'A migration failed: .*relation "a" already exists'):
        await run(dsn, tmp_path)
    assert await tables(dsn) >= {"a"}
    assert "b" not in await tables(dsn)


async def test_a_migration_that_waits_for_a_lock_says_what_to_do(dsn: str, tmp_path: Path) -> None:
    write(tmp_path, "0001_a.sql", "CREATE TABLE a (i int);")
    await run(dsn, tmp_path)
    write(tmp_path, "0002_b.sql", "SET LOCAL lock_timeout = '50ms'; CREATE TABLE b (i int); ALTER TABLE a ADD j int;")
    backup = await asyncpg.connect(dsn)
    async with backup.transaction():
        await backup.fetch("SELECT * FROM a")
        with pytest.raises(ConfigError, match=r"lock timeout .*It has changed nothing.* end long transactions"):
            await run(dsn, tmp_path)
    await backup.close()
    assert "b" not in await tables(dsn)
    assert await run(dsn, tmp_path) == 1


async def test_a_migration_that_hangs_is_given_up(dsn: str, tmp_path: Path) -> None:
    write(tmp_path, "0001_a.sql", "SELECT pg_sleep(60);")
    with pytest.raises(ConfigError, match=r"took more than 0\.5 s"):
        await migrate(dsn, wait_s=0, connect_timeout_s=5, timeout_s=0.5, folder=tmp_path)


@contextlib.asynccontextmanager
async def over_tcp(socket_path: str, port: int = 0) -> AsyncIterator[str]:
    """The server behind a Unix socket, on a TCP port; gives host:port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(socket_path)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async with await asyncio.start_server(relay, "127.0.0.1", port) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


async def test_a_server_over_tcp_without_tls_works(dsn: str) -> None:
    database = dsn.partition("@/")[2].partition("?")[0]
    folder = dsn.partition("?host=")[2].partition("&")[0]
    async with over_tcp(f"{folder}/.s.PGSQL.5432") as address:
        assert await run(f"postgresql://magpie:{PASSWORD}@{address}/{database}") > 0


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def refusal_of(address: str, kind: str) -> str:
    """The sentence for an unusable address; checked to hold no secret."""
    reach = reach_postgres if kind == "postgres" else reach_redis
    with pytest.raises(ConfigError) as caught:
        await reach(address, wait_s=0, connect_timeout_s=2, on_step=lambda _: None)
    sentence = str(caught.value)
    assert PASSWORD not in sentence and "geheim" not in sentence
    assert sentence.endswith(".") and "\n" not in sentence
    assert caught.value.__cause__ is None
    return sentence


async def test_an_unreachable_server_is_named() -> None:
    port = closed_port()
    sentence = await refusal_of(f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/im", "postgres")
    assert f"PostgreSQL at 127.0.0.1:{port} cannot be reached (connection refused)" in sentence
    sentence = await refusal_of(f"redis://:{PASSWORD}@127.0.0.1:{port}/0", "redis")
    assert f"Redis at 127.0.0.1:{port} cannot be reached" in sentence


@pytest.mark.parametrize(
    "address",
    [
        f"mysql://u:{PASSWORD}@db/im",
        f"postgresql://u:pa/{PASSWORD}@db/im",
        f"postgresql://u:{PASSWORD}@[db/im",
        "nonsense",
    ],
)
async def test_what_is_no_address_of_postgresql_is_said(address: str) -> None:
    assert "IM_POSTGRES__DSN" in await refusal_of(address, "postgres")


@pytest.mark.parametrize("address", [f"http://u:{PASSWORD}@db", f"redis://:{PASSWORD}@db:x/0", "nonsense"])
async def test_what_is_no_address_of_redis_is_said(address: str) -> None:
    assert "IM_REDIS__URL" in await refusal_of(address, "redis")


async def test_a_missing_database_and_a_wrong_login_are_said(servers: EmbeddedServers) -> None:
    sentence = await refusal_of(servers.dsn.replace("/magpie?", "/none?"), "postgres")
    assert 'database "none" does not exist' in sentence
    sentence = await refusal_of(servers.dsn.replace("magpie@", f"nobody:{PASSWORD}@"), "postgres")
    assert 'role "nobody" does not exist' in sentence
    sentence = await refusal_of(servers.redis_url.replace("?db=0", "?db=99"), "redis")
    assert "IM_REDIS__URL" in sentence


async def test_a_full_server_is_said(servers: EmbeddedServers) -> None:
    admin = await asyncpg.connect(servers.dsn)
    await admin.execute("CREATE ROLE crowd LOGIN CONNECTION LIMIT 0")
    try:
        sentence = await refusal_of(servers.dsn.replace("magpie@", "crowd@"), "postgres")
    finally:
        await admin.execute("DROP ROLE crowd")
        await admin.close()
    assert "has no connection left (too many connections" in sentence
    assert "raise its max_connections" in sentence


async def test_a_server_that_starts_later_is_waited_for(servers: EmbeddedServers) -> None:
    path = servers.redis_url.removeprefix("unix://").partition("?")[0]
    steps: list[str] = []
    port = closed_port()
    url = f"redis://127.0.0.1:{port}/0"
    reached = asyncio.ensure_future(reach_redis(url, wait_s=20, connect_timeout_s=2, on_step=steps.append))
    while not steps:
        await asyncio.sleep(0.01)
    assert f"Waiting for Redis at 127.0.0.1:{port}" in steps[0]
    async with over_tcp(path, port):
        await reached
    assert len(steps) == 1, "said once"
