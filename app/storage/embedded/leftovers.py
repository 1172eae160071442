"""Finds and ends servers that an earlier, killed run left behind; only for the holder of the data folder's lock."""

import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil

GRACE_S = 2.0
"""A shutdown takes less as a rule; one caught in the middle of its own crash recovery may hang, and killing it is safe."""
KILL_WAIT_S = 10.0
POLL_S = 0.02


def end_leftovers(program: str, work_dir: Path, polite: signal.Signals) -> int:
    """End every process called `program` whose working folder is `work_dir`; returns how many there were. Blocks.

    The server itself is asked first; it ends its own children. Children without it, and whoever is still there after
    the grace time, are killed, which costs a crash recovery but no data. A pid file alone would not do: pids are
    reused, and children outlive a killed parent.
    """
    found = _running(program, work_dir)
    heads = [process for process in found if not _is_child(process)]
    for process in heads:
        _send(process, polite)
    if not _gone(program, work_dir, GRACE_S if heads else 0.0):
        for process in _running(program, work_dir):
            _send(process, signal.SIGKILL)
        _gone(program, work_dir, KILL_WAIT_S)
    return len(found)


def _is_child(process: psutil.Process) -> bool:
    """PostgreSQL's children show what they do instead of their command line."""
    try:
        return bool(process.cmdline()[0].startswith("postgres:"))
    except (psutil.NoSuchProcess, IndexError):
        return True


def _send(process: psutil.Process, what: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(what)


def _running(program: str, work_dir: Path) -> list[psutil.Process]:
    """A zombie has no working folder, so it does not count."""
    return [p for p in psutil.process_iter(["name"]) if p.info["name"] == program and _folder(p) == str(work_dir)]


def _folder(process: psutil.Process) -> str:
    try:
        return str(process.cwd())
    except psutil.Error:
        return ""


def _gone(program: str, work_dir: Path, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while _running(program, work_dir):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True
