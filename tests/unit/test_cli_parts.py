"""Parts of the command line that are awkward to reach through a process."""

import asyncio
import socket
import stat
import threading
from pathlib import Path

import pytest

from app.cli import attach
from app.cli.listen import bind
from app.cli.secret import dev_secret
from app.cli.serve import EXIT_FAILED, Stop
from app.cli.show import public_url
from app.errors import ConfigError
from app.settings import MIN_SECRET_CHARS, Settings, load
from tests.commands import CLOSED


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    secret = dev_secret(folder)
    assert len(secret) >= MIN_SECRET_CHARS
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    (folder / "secret").chmod(0o644)
    assert dev_secret(folder) == secret
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["secret"]


def test_processes_that_start_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    barrier, made = threading.Barrier(8), []

    def make() -> None:
        barrier.wait()
        made.append(dev_secret(tmp_path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1


@pytest.mark.parametrize("content", [b"", b"too short\n", b"\xff" * 40])
def test_a_spoilt_secret_is_said_and_not_used(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match="delete it to get a new one"):
        dev_secret(tmp_path)


def test_an_unknown_key_in_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "overlay_dir", tmp_path)
    (tmp_path / "test.toml").write_text("[http]\nprot = 1\n")
    with pytest.raises(ConfigError, match=r"http\.prot"):
        load()
    (tmp_path / "test.toml").write_text("[htpp]\nport = 1\n")
    with pytest.raises(ConfigError, match="htpp"):
        load()
    (tmp_path / "test.toml").write_text("[http\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load()


def test_sockets_are_bound_or_explained() -> None:
    with bind("127.0.0.1", 0, "IM_HTTP") as free:
        assert free.getsockname()[1] > 0
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"Port {port} on 127\.0\.0\.1 is in use .* IM_METRICS__PORT"):
            bind("127.0.0.1", port, "IM_METRICS")
    with pytest.raises(ConfigError, match=r"203\.0\.113\.7 is not an address of this machine; correct IM_HTTP__HOST"):
        bind("203.0.113.7", 0, "IM_HTTP")


@pytest.mark.parametrize(
    ("host", "public", "shown"),
    [
        ("127.0.0.1", "", "http://localhost:8080"),
        ("0.0.0.0", "", "http://localhost:8080"),  # noqa: S104 - what an operator may set
        ("192.0.2.1", "", "http://192.0.2.1:8080"),
        ("::1", "", "http://localhost:8080"),
        ("2001:db8::1", "", "http://[2001:db8::1]:8080"),
        ("127.0.0.1", "https://chat.example.org", "https://chat.example.org"),
    ],
)
def test_people_are_told_an_address_they_can_open(host: str, public: str, shown: str) -> None:
    http = load().http.model_copy(update={"host": host, "port": 8080, "public_url": public})
    assert public_url(http) == shown


@pytest.mark.may_block
@pytest.mark.parametrize("away", ["Redis", "PostgreSQL"])
async def test_a_command_beside_a_server_does_not_wait_for_a_store_as_the_server_does(
    monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    monkeypatch.setattr(attach, "WAIT_MAX_S", 0.2)
    monkeypatch.setenv("IM_POSTGRES__DSN", f"postgresql://im@{CLOSED}/im")
    monkeypatch.setenv("IM_REDIS__URL", f"redis://{CLOSED}")
    for store in ("POSTGRES", "REDIS"):
        monkeypatch.setenv(f"IM_{store}__STARTUP_WAIT_S", "120")
    async with asyncio.timeout(20):
        with pytest.raises(ConfigError, match=f"{away} at {CLOSED} cannot be reached"):
            async with attach.existing_stores(load(), lambda _: None, need_redis=away == "Redis"):
                pass


async def test_a_part_that_dies_ends_the_process_with_an_error() -> None:
    task = asyncio.ensure_future(asyncio.sleep(60, 0))
    stop = Stop(task)
    stop.on_failure("consumer")
    stop.on_failure("publisher")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stop.exit_code == EXIT_FAILED


async def test_the_first_signal_ends_the_process_gracefully() -> None:
    task = asyncio.ensure_future(asyncio.sleep(60, 0))
    stop = Stop(task)
    stop.on_signal()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stop.exit_code == 0


async def test_a_part_that_dies_while_the_process_ends_is_an_error_and_interrupts_no_step() -> None:
    ending = asyncio.Event()
    steps = []

    async def serve() -> int:
        try:
            await asyncio.Event().wait()
            return 0
        finally:
            ending.set()
            for step in range(3):
                await asyncio.sleep(0)
                steps.append(step)

    task = asyncio.ensure_future(serve())
    await asyncio.sleep(0)
    stop = Stop(task)
    stop.on_signal()
    await ending.wait()
    stop.on_failure("consumer")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (stop.exit_code, steps) == (EXIT_FAILED, [0, 1, 2])
