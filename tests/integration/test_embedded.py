"""Embedded servers keep their data, come back after any kill, leave nothing behind, and say why they cannot start."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import ConfigError
from app.sections import Embedded
from app.settings import ROOT
from app.storage.embedded import EmbeddedServers, embedded_servers

# Starting is allowed to block: nothing is served yet.
pytestmark = [pytest.mark.timeout(200), pytest.mark.may_block]

OPTIONS = Embedded(
    start_timeout_s=30,
    postgres_max_connections=20,
    postgres_shared_buffers_mb=16,
    valkey_max_memory_mb=32,
    log_max_bytes=1_000_000,
)
DEADLINE_S = 60.0
RUNNER = """
import asyncio, sys
from pathlib import Path
import asyncpg
from app.errors import ConfigError
from app.sections import Embedded
from app.storage.embedded import embedded_servers

async def main():
    options = Embedded.model_validate_json(sys.argv[2])
    async with embedded_servers(Path(sys.argv[1]), options, durable=False) as servers:
        connection = await asyncpg.connect(servers.dsn)
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (n serial); INSERT INTO kept DEFAULT VALUES")
        print("rows", await connection.fetchval("SELECT count(*) FROM kept"), flush=True)
        await asyncio.Event().wait()

try:
    asyncio.run(main())
except ConfigError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder to be made; its path is short and other users can reach it, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="im-"))
    folder.chmod(0o755)
    yield folder / "data"
    for process in servers_of(folder):
        # Backends may follow their postmaster by themselves.
        with suppress(psutil.NoSuchProcess):
            process.kill()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A data folder after its first start: copying it is quicker than creating one for every test."""

    async def create(folder: Path) -> None:
        async with embedded_servers(folder, OPTIONS, want_redis=False, durable=False):
            pass

    with tempfile.TemporaryDirectory(prefix="im-") as folder:
        asyncio.run(create(Path(folder) / "data"))
        yield Path(folder) / "data"


@pytest.fixture
def used_dir(data_dir: Path, template: Path) -> Path:
    """A data folder of an earlier run."""
    shutil.copytree(template, data_dir)
    return data_dir


def servers_of(folder: Path) -> list[psutil.Process]:
    """Live PostgreSQL and Valkey processes under `folder`."""
    found = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] in ("postgres", "valkey-server"):
            with suppress(psutil.Error):
                if Path(process.cwd()).is_relative_to(folder):
                    found.append(process)
    return found


async def until_no_servers(folder: Path) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while servers_of(folder):
            await asyncio.sleep(0.02)


class Runner:
    """A process of its own that holds the servers; each start adds a row and tells how many there are."""

    def __init__(self, data_dir: Path, *prefix: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", RUNNER, str(data_dir), OPTIONS.model_dump_json()],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    async def rows(self) -> int:
        assert self.process.stdout is not None
        line = "log lines come first"
        while line and not line.startswith("rows "):
            line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), DEADLINE_S)
        assert line, self.end(signal.SIGKILL)
        return int(line.split()[1])

    def end(self, how: signal.Signals) -> str:
        self.process.send_signal(how)
        return self.process.communicate(timeout=DEADLINE_S)[1]


StartRunner = Callable[..., Runner]


@pytest.fixture
def start_runner(data_dir: Path) -> Iterator[StartRunner]:
    """Starts a Runner on the test's folder; all of them are gone after the test."""
    started: list[Runner] = []

    def start(*prefix: str, env: dict[str, str] | None = None) -> Runner:
        started.append(Runner(data_dir, *prefix, env=env))
        return started[-1]

    yield start
    for runner in started:
        if runner.process.returncode is None:
            runner.end(signal.SIGKILL)


@asynccontextmanager
async def running(data_dir: Path, **options: object) -> AsyncIterator[EmbeddedServers]:
    async with embedded_servers(data_dir, OPTIONS.model_copy(update=options), durable=False) as servers:
        yield servers


async def answer(servers: EmbeddedServers) -> bool:
    """Whether both servers take requests."""
    try:
        await (await asyncpg.connect(servers.dsn)).close()
        async with Redis.from_url(servers.redis_url) as redis:
            await redis.ping()
    except (OSError, asyncpg.PostgresError, RedisError):
        return False
    return True


async def test_data_survive_a_clean_restart_and_nothing_stays_running(data_dir: Path) -> None:
    steps: list[str] = []
    async with embedded_servers(data_dir, OPTIONS, on_step=steps.append) as servers:
        connection = await asyncpg.connect(servers.dsn)
        await connection.execute("CREATE TABLE kept (text text)")
        await connection.execute("INSERT INTO kept VALUES ('Grüße, 你好')")
        assert await connection.fetchval("SELECT lower('ÄÖ')") == "äö"
        assert await connection.fetchval("SHOW fsync") == "on"
        await connection.close()
        async with Redis.from_url(servers.redis_url) as redis:
            assert await redis.set("key", "value")
        assert len(servers_of(data_dir)) > 2
    assert servers_of(data_dir) == []
    assert not (data_dir / "run").exists()
    assert "PostgreSQL ready" in " ".join(steps) and "Valkey ready" in " ".join(steps)

    async with embedded_servers(data_dir, OPTIONS) as servers:
        connection = await asyncpg.connect(servers.dsn)
        assert await connection.fetchval("SELECT text FROM kept") == "Grüße, 你好"
        await connection.close()
        async with Redis.from_url(servers.redis_url) as redis:
            assert await redis.dbsize() == 0, "a cache must not pretend to be more"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_servers_end_with_the_process(used_dir: Path, how: signal.Signals, start_runner: StartRunner) -> None:
    if how != signal.SIGINT and not shutil.which("setpriv"):
        pytest.skip("only Linux with setpriv ends the servers of a killed process at once")
    runner = start_runner()
    await runner.rows()
    assert servers_of(used_dir)
    runner.end(how)
    await until_no_servers(used_dir)


async def test_an_exception_in_the_block_stops_the_servers(used_dir: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with running(used_dir):
            _ = 1 / 0
    assert servers_of(used_dir) == []


async def test_restart_at_once_after_the_process_was_killed(used_dir: Path, start_runner: StartRunner) -> None:
    for expected in (1, 2, 3):
        runner = start_runner()
        assert await runner.rows() == expected
        runner.end(signal.SIGKILL)


async def test_restart_after_everything_was_killed(used_dir: Path, start_runner: StartRunner) -> None:
    runner = start_runner()
    assert await runner.rows() == 1
    victims = servers_of(used_dir)
    pid_file = used_dir / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    for process in victims:
        process.kill()
    runner.end(signal.SIGKILL)
    await until_no_servers(used_dir)
    # The kernel may have given the pid to someone else since.
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    runner = start_runner()
    assert await runner.rows() == 2
    runner.end(signal.SIGINT)
    assert servers_of(used_dir) == []


async def test_restart_while_backends_of_a_killed_postgres_still_work(
    used_dir: Path, start_runner: StartRunner
) -> None:
    runner = start_runner()
    assert await runner.rows() == 1
    backends = [p for p in servers_of(used_dir) if p.name() == "postgres"]
    pids = {p.pid for p in backends}
    stopped = next(p for p in backends if p.ppid() in pids)
    stopped.suspend()  # a stopped process does not notice that its parent is gone
    for process in backends:
        if process.pid != stopped.pid:
            process.kill()
    runner.end(signal.SIGKILL)
    runner = start_runner()
    assert await runner.rows() == 2
    runner.end(signal.SIGINT)
    assert servers_of(used_dir) == []


async def test_a_dead_server_comes_back_on_the_same_address(used_dir: Path) -> None:
    async with running(used_dir) as servers:
        for process in servers_of(used_dir):
            process.kill()
        async with asyncio.timeout(DEADLINE_S):
            while not await answer(servers):
                await asyncio.sleep(0.02)
    assert servers_of(used_dir) == []


async def test_a_second_process_is_told_who_holds_the_folder(used_dir: Path, start_runner: StartRunner) -> None:
    async with running(used_dir, log_max_bytes=1) as servers:
        second = start_runner()
        error = await asyncio.to_thread(second.process.communicate, timeout=DEADLINE_S)
        assert f"{used_dir} is in use by process {os.getpid()}" in error[1]
        assert "Traceback" not in error[1]
        assert await answer(servers), "the first one is unharmed"


async def test_only_what_is_wanted_is_started(data_dir: Path) -> None:
    async with embedded_servers(data_dir, OPTIONS, want_postgres=False) as servers:
        assert servers.dsn == ""
        assert {p.name() for p in servers_of(data_dir)} == {"valkey-server"}
    async with embedded_servers(data_dir / "none", OPTIONS, want_postgres=False, want_redis=False) as servers:
        assert servers == EmbeddedServers()
    assert not (data_dir / "none").exists()


async def test_a_path_too_long_for_sockets_or_strange_in_urls_works(data_dir: Path) -> None:
    deep = data_dir / ("long" * 20) / "ein Ordner, 数据 & mehr?"
    async with running(deep) as servers:
        assert await answer(servers)


async def test_a_folder_that_cannot_be_written_is_one_sentence(data_dir: Path) -> None:
    data_dir.write_text("a file")
    with pytest.raises(ConfigError, match=r"Cannot write to the data folder .*; set IM_DATA_DIR"):
        async with running(data_dir / "below"):
            pass


async def test_unusable_data_is_one_sentence_with_the_log_to_read(used_dir: Path) -> None:
    async with running(used_dir, log_max_bytes=1):
        pass
    (used_dir / "postgres" / "PG_VERSION").write_text("12\n")
    with pytest.raises(
        ConfigError, match=r"PostgreSQL did not start: database files are incompatible.*see .*postgres.log\.$"
    ):
        async with running(used_dir, log_max_bytes=1):
            pass
    assert (used_dir / "logs" / "postgres.log.1").exists(), "a full log is kept once, not for ever"
    assert servers_of(used_dir) == []


async def test_a_start_that_takes_too_long_ends_with_a_sentence(data_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"Valkey was not ready after 0\.001 s"):
        async with embedded_servers(
            data_dir, OPTIONS.model_copy(update={"start_timeout_s": 0.001}), want_postgres=False
        ):
            pass
    assert servers_of(data_dir) == []


async def test_a_creation_cut_short_is_begun_anew(data_dir: Path) -> None:
    (data_dir / "postgres.new").mkdir(parents=True)
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    async with running(data_dir) as servers:
        assert await answer(servers)
    assert not (data_dir / "postgres.new").exists()


def other_user() -> list[str]:
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or not setpriv:
        pytest.skip("only root can become another user")
    nobody = pwd.getpwnam("nobody")
    prefix = [setpriv, f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    probe = [*prefix, sys.executable, "-c", "import app.storage.embedded"]
    if subprocess.run(probe, cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("another user cannot reach this virtual environment")
    return prefix


async def test_a_normal_user_needs_neither_root_nor_setpriv(data_dir: Path, start_runner: StartRunner) -> None:
    prefix = other_user()
    os.chown(data_dir.parent, pwd.getpwnam("nobody").pw_uid, 0)
    runner = start_runner(*prefix, env={"PATH": "/nonexistent"})
    assert await runner.rows() == 1
    runner.end(signal.SIGKILL)
    assert servers_of(data_dir), "without setpriv the servers outlive a killed process"
    runner = start_runner(*prefix, env={"PATH": "/nonexistent"})
    assert await runner.rows() == 2
    runner.end(signal.SIGINT)
    assert servers_of(data_dir) == []


async def test_a_missing_permission_is_one_sentence(data_dir: Path, start_runner: StartRunner) -> None:
    runner = start_runner(*other_user())  # the folder above is root's
    error = await asyncio.to_thread(runner.process.communicate, timeout=DEADLINE_S)
    assert "refused: Cannot write to the data folder" in error[1] and "Permission denied" in error[1]
