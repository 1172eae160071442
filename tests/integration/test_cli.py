"""The command line: what it prints, what it leaves behind, and how it ends. As a real process wherever that makes a difference."""

import asyncio
import json
import logging
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import stamina.instrumentation

from app import log
from app.cli.main import main
from app.settings import ROOT
from tests.commands import CLOSED, DEADLINE_S, SECRET, environment, refusal, run

pytestmark = pytest.mark.may_block


def servers_of(folder: Path) -> list[str]:
    """Live PostgreSQL and Valkey processes under `folder`."""
    found = []
    for process in psutil.process_iter(["name"]):
        if process.info["name"] in ("postgres", "valkey-server"):
            try:
                if Path(process.cwd()).is_relative_to(folder):
                    found.append(process.info["name"])
            except psutil.Error:
                continue
    return found


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder to be made; short, so that sockets fit, and reachable for the user the servers run as under root."""
    folder = Path(tempfile.mkdtemp(prefix="im-"))
    folder.chmod(0o755)
    yield folder / "data"
    shutil.rmtree(folder)


Ask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ask(data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """`run` on the test's folder in this process, which saves a second; for commands that only answer or refuse."""

    def answer(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for name, value in environment(data_dir, **variables).items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["run.py", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, *capsys.readouterr())

    yield answer
    # What a process configures for itself, as it was.
    log.configure("debug", "json")
    logging.getLogger().handlers = []
    stamina.instrumentation.set_on_retry_hooks(None)


class Serving:
    """A serving process; `steps` holds what it has said so far."""

    def __init__(self, data_dir: Path, **variables: str) -> None:
        self.steps: list[str] = []
        self._log = data_dir.parent / "log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "run.py"],
                cwd=ROOT,
                env=environment(data_dir, **variables),
                stdout=log,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    def until(self, text: str) -> str:
        """Read on to the first line with `text`."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.steps.append(line.rstrip())
            if text in line:
                return line
        pytest.fail(f"it ended with {self.process.wait()}: {self.steps}\n{self.log()}")

    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    def logged(self, event: str) -> str:
        """The first log line with `event`, waited for."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.log().splitlines(keepends=True):
                if event in line and line.endswith("\n"):
                    return line
            time.sleep(0.02)
        pytest.fail(f"{event} was not logged: {self.log()}")

    def url(self) -> str:
        """Where it serves, once it does."""
        match = re.search(r"http://\S+", self.until("http://"))
        assert match is not None
        return match[0]

    def end(self, how: signal.Signals) -> int:
        """Signal it and wait for its end; the exit code."""
        self.process.send_signal(how)
        assert self.process.stderr is not None
        self.steps += self.process.stderr.read().splitlines()
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """Leave nothing, whatever the test did."""
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        if self.process.stderr is not None:
            self.process.stderr.close()


StartServing = Callable[..., Serving]


@pytest.fixture
def start(data_dir: Path) -> Iterator[StartServing]:
    """Starts `run.py` on the test's data folder; all of them are gone after the test."""
    started: list[Serving] = []

    def start_one(**variables: str) -> Serving:
        started.append(Serving(data_dir, **variables))
        return started[-1]

    yield start_one
    for serving in started:
        serving.close()
    deadline = time.monotonic() + DEADLINE_S
    while servers_of(data_dir) and time.monotonic() < deadline:
        time.sleep(0.02)


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as response:  # noqa: S310 - our own server
        return int(response.status)


# What the operator can put right: one sentence, exit code 2


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"IM_HTPP__PORT": "1"}, "Unknown setting IM_HTPP__PORT"),
        ({"IM_POSTGRES__DSN": f"postgresql://im:{SECRET}@{CLOSED}/im"}, f"PostgreSQL at {CLOSED} cannot be reached"),
        ({"IM_POSTGRES__DSN": f"mysql://im:{SECRET}@db/im"}, "IM_POSTGRES__DSN is not an address"),
        ({"IM_REDIS__URL": f"redis://:{SECRET}@{CLOSED}"}, f"Redis at {CLOSED} cannot be reached"),
        (
            {"IM_BROKER__KIND": "redis_streams", "IM_REDIS_STREAMS__URL": f"redis://{CLOSED}"},
            f"Redis at {CLOSED} cannot be reached.* IM_REDIS_STREAMS__URL",
        ),
        ({"IM_HTTP__HOST": "no.such.host.invalid"}, "correct IM_HTTP__HOST"),
    ],
)
def test_a_mistake_in_the_settings_is_one_sentence(
    ask: Ask, data_dir: Path, variables: dict[str, str], sentence: str
) -> None:
    assert re.search(sentence, refusal(ask(**variables)))
    assert servers_of(data_dir) == []


def test_secret_files_are_settings(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "IM_POSTGRES__DSN").write_text(f"postgresql://im:{SECRET}@{CLOSED}/im\n")
    (tmp_path / "..data").mkdir()
    assert f"PostgreSQL at {CLOSED} cannot be reached" in refusal(ask(IM_SECRETS_DIR=str(tmp_path)))
    (tmp_path / "IM_FOO").write_text("x")
    assert f"Unknown setting IM_FOO in {tmp_path}" in refusal(ask(IM_SECRETS_DIR=str(tmp_path)))


def test_lists_may_be_given_with_commas(ask: Ask) -> None:
    done = ask("checkconfig", IM_HTTP__TRUSTED_PROXIES="10.0.0.0/8, ::1/128", IM_COLLECTOR__THRESHOLDS="1,2,3")
    assert 'trusted_proxies = ["10.0.0.0/8", "::1/128"]' in done.stdout
    assert "thresholds = [1, 2, 3]" in done.stdout


def test_production_refuses_sample_secrets(ask: Ask) -> None:
    stores = {"IM_POSTGRES__DSN": "postgresql://db/im", "IM_REDIS__URL": "redis://cache"}
    done = ask("checkconfig", IM_ENV="production", IM_AUTH__SECRET="sample-" + "s" * 40, **stores)
    assert "auth.secret is the sample" in refusal(done)


def test_a_port_in_use_is_one_sentence_before_anything_starts(ask: Ask, data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = ask(IM_HTTP__PORT=str(port))
    assert f"Port {port} on 127.0.0.1 is in use by another program; stop that one or set IM_HTTP__PORT" in refusal(done)
    assert not data_dir.exists()


async def test_a_database_user_without_rights_is_one_sentence(data_dir: Path, dsn: str, redis_url: str) -> None:
    admin = await asyncpg.connect(dsn)
    await admin.execute("CREATE ROLE reader LOGIN; GRANT pg_read_all_data TO reader")
    stores = {"IM_POSTGRES__DSN": dsn.replace("magpie@", "reader@"), "IM_REDIS__URL": redis_url}
    try:
        sentence = refusal(await asyncio.to_thread(run, data_dir, IM_AUTH__SECRET=SECRET, **stores))
        assert "permission denied for" in sentence
        assert "owner" in sentence
        await admin.execute("REVOKE pg_read_all_data FROM reader")
        assert "permission denied" in refusal(await asyncio.to_thread(run, data_dir, "migrate", **stores))
    finally:
        await admin.execute("DROP ROLE reader")
        await admin.close()


async def test_a_full_house_of_processes_is_one_sentence(data_dir: Path, dsn: str, redis_url: str) -> None:
    admin = await asyncpg.connect(dsn)
    await admin.execute(
        "INSERT INTO worker_leases SELECT n, 'other', now() + interval '1 hour' FROM generate_series(0, 1023) AS n"
    )
    await admin.close()
    stores = {"IM_POSTGRES__DSN": dsn, "IM_REDIS__URL": redis_url}
    sentence = refusal(await asyncio.to_thread(run, data_dir, IM_AUTH__SECRET=SECRET, **stores))
    assert "all 1024 worker ids are leased" in sentence


def test_a_data_folder_that_cannot_be_written_is_one_sentence(ask: Ask, data_dir: Path) -> None:
    data_dir.write_text("a file where the folder should be")
    assert f"Cannot write to the data folder {data_dir}" in refusal(ask())


def test_an_old_python_is_one_sentence() -> None:
    code = "import runpy, sys; sys.version_info = (3, 10, 4); runpy.run_path('run.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "magpie: Python 3.11 or newer is needed, this is 3.10.\n")


# Commands


def test_help_and_mistyped_commands_answer(data_dir: Path) -> None:
    done = run(data_dir, "--help")
    assert done.returncode == 0
    for command in ("serve", "migrate", "chat", "openapi", "checkconfig"):
        assert re.search(rf"\b{command}\b", done.stdout), command
    done = run(data_dir, "sevre")
    assert done.returncode == 2
    assert "No such command" in done.stderr


def test_checkconfig_shows_what_is_in_effect_and_masks_secrets(ask: Ask, data_dir: Path) -> None:
    done = ask(
        "checkconfig",
        IM_AUTH__SECRET=SECRET,
        IM_POSTGRES__DSN=f"postgresql://im:{SECRET}@db/im",
        IM_LIMITS__SEND_PER_MINUTE="7",
        IM_HTTP__ALLOWED_ORIGINS='["https://chat.example.org"]',
    )
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    shown = tomllib.loads(done.stdout)
    assert shown["limits"]["send_per_minute"] == 7
    assert shown["http"]["allowed_origins"] == ["https://chat.example.org"]
    assert shown["auth"]["secret"] == shown["postgres"]["dsn"] == "**********"
    assert shown["redis"]["url"] == "", "an empty address shows that the store is embedded"
    assert not data_dir.exists(), "looking changes nothing"


def test_migrate_brings_the_database_up_to_date_and_leaves(data_dir: Path) -> None:
    done = run(data_dir, "migrate")
    assert done.returncode == 0, done.stderr
    assert "Applied: 0001_" in done.stderr
    assert servers_of(data_dir) == []
    done = run(data_dir, "migrate")
    assert done.returncode == 0
    assert "Applied" not in done.stderr
    assert "up to date" in done.stderr


def test_openapi_is_printed_and_written(ask: Ask) -> None:
    done = ask("openapi")
    assert done.returncode == 0, done.stderr
    assert '"openapi": "3.1' in done.stdout
    assert "cannot write" in refusal(ask("openapi", "-o", "/no/such/folder/api.json")).lower()


# Serving


def test_serves_on_embedded_stores_and_leaves_nothing_running(data_dir: Path, start: StartServing) -> None:
    serving = start()
    url = serving.url()
    said = "\n".join(serving.steps)
    for step in ("PostgreSQL ready in", "Valkey ready in", "Applied: 0001_", "Ready in"):
        assert step in said, said
    assert status_of(f"{url}/livez") == 200
    assert status_of(f"{url}/readyz") == 200
    secret = data_dir / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    first = secret.read_text()

    done = run(data_dir, IM_HTTP__PORT=url.rpartition(":")[2])
    assert f"{data_dir} is in use by process {serving.process.pid}; stop that process or set IM_DATA_DIR" in refusal(
        done
    )
    assert status_of(f"{url}/readyz") == 200, "the first one is unharmed"

    assert serving.end(signal.SIGTERM) == 0
    assert servers_of(data_dir) == []

    serving = start()
    serving.url()
    assert secret.read_text() == first, "sessions survive a restart"
    assert serving.end(signal.SIGINT) == 0
    assert servers_of(data_dir) == []


def test_serves_in_production_on_the_stores_it_is_given(
    data_dir: Path, start: StartServing, dsn: str, redis_url: str
) -> None:
    own = {"IM_POSTGRES__DSN": dsn, "IM_REDIS__URL": redis_url, "IM_AUTH__SECRET": SECRET}
    serving = start(IM_ENV="production", IM_HTTP__HOST="127.0.0.1", IM_METRICS__HOST="127.0.0.1", **own)
    address = json.loads(serving.logged("ready_to_serve"))["address"]
    assert status_of(f"{address}/readyz") == 200
    assert serving.end(signal.SIGTERM) == 0
    assert serving.steps == [], "where nobody watches everything is a log line"
    assert SECRET not in serving.log()
    assert not data_dir.exists(), "nothing is kept beside the stores"


def test_serves_with_all_the_files_it_may_open_and_says_when_they_are_few(
    start: StartServing, dsn: str, redis_url: str
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    try:
        serving = start(IM_POSTGRES__DSN=dsn, IM_REDIS__URL=redis_url, IM_GATEWAY__MAX_CONNECTIONS=str(10**9))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    said = json.loads(serving.logged("open_files_limited"))
    assert said["limit"] > 512
    assert said["needed"] > 10**9
    assert serving.end(signal.SIGTERM) == 0


def test_restarts_after_its_whole_group_was_killed(start: StartServing) -> None:
    for _ in range(3):
        serving = start()
        assert status_of(f"{serving.url()}/readyz") == 200
        os.killpg(serving.process.pid, signal.SIGKILL)
        serving.end(signal.SIGKILL)


def test_a_signal_while_starting_ends_it_cleanly(data_dir: Path, start: StartServing) -> None:
    serving = start()
    serving.until("Creating the PostgreSQL data")
    assert serving.end(signal.SIGINT) == 0, serving.steps
    assert servers_of(data_dir) == []
    assert "Traceback" not in "\n".join(serving.steps)
    assert status_of(f"{start().url()}/readyz") == 200


def test_a_terminal_free_environment_gets_its_steps_as_log_lines(ask: Ask) -> None:
    done = ask(IM_LOG__FORMAT="json", IM_REDIS__URL=f"redis://{CLOSED}")
    assert refusal(done).startswith("magpie: Redis at")
    assert len(done.stderr.splitlines()) == 1
    assert "startup_step" in done.stdout
