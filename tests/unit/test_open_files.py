"""The limit of open files is raised as far as it may be, and what does not fit into it is said once."""

import resource
import subprocess
import sys
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from app.open_files import SPARE_FILES, raise_open_files, warn_of_few
from app.settings import ROOT


def test_a_process_takes_what_it_is_allowed() -> None:
    text = "from app.open_files import raise_open_files as r; print(r(), r())"
    limited = ["bash", "-c", 'ulimit -n 400 && ulimit -Sn 100 && exec "$0" -c "$1"', sys.executable, text]
    assert subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "400 400\n"


def refuse_infinity(_: int, wanted: tuple[int, int]) -> None:
    """As macOS does."""
    if wanted[0] == resource.RLIM_INFINITY:
        raise ValueError("invalid argument")


def refuse(_: int, wanted: tuple[int, int]) -> None:
    raise ValueError(f"not allowed to raise maximum limit to {wanted}")


@pytest.mark.parametrize("set_limit", [refuse_infinity, refuse])
def test_a_process_that_may_not_raise_it_starts_all_the_same(
    monkeypatch: pytest.MonkeyPatch, set_limit: Callable[[int, tuple[int, int]], None]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert raise_open_files() == 256


@pytest.mark.parametrize(("limit", "said"), [(1024, 1), (20_000 + SPARE_FILES - 1, 1), (20_000 + SPARE_FILES, 0)])
def test_fewer_files_than_connections_are_said(limit: int, said: int) -> None:
    with capture_logs() as logs:
        warn_of_few(limit, 20_000)
    assert [each["event"] for each in logs] == ["open_files_limited"] * said
