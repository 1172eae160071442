"""How much is tried, from which seed, on which server."""

import asyncio
import logging
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from tests.faults.process import ServerProcess, a_server

log = logging.getLogger("faults")

FULL = os.environ.get("FAULTS") == "full"
"""`make faults`; otherwise the short form, which is part of `make test`."""
PATIENCE = 1 if FULL else 3
"""Limits of time are judged by the full form, on a machine that does nothing else; beside other tests they only tell what hangs."""


@dataclass(frozen=True)
class Trial:
    """How much is tried, and all random choices from `seed`, which may be given as `FAULTS_SEED`."""

    seed: int
    history: Path

    def count(self, full: int, short: int) -> int:
        """How often to do it."""
        return full if FULL else short

    @cached_property
    def chance(self) -> random.Random:
        """The choices of a test, one after the other; the load has its own."""
        return random.Random(f"faults {self.seed}")  # noqa: S311 - must be repeatable


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of the other form are not there at all."""
    other = [item for item in items if item.get_closest_marker("short_form" if FULL else "full_form")]
    config.hook.pytest_deselected(items=other)
    items[:] = [item for item in items if item not in other]
    for item in items:
        if "tests/faults/" in item.nodeid:
            # The servers are processes of their own; looking at each call of the members costs a tenth of what they can do.
            item.add_marker("may_block")


@pytest.fixture(autouse=True)
def progress_only() -> Iterator[None]:
    """`make faults` shows what is logged as it happens; requests of servers in this process, and every handshake, are not worth a line."""
    levels = {"": logging.WARNING, "app": logging.WARNING, "faults": logging.INFO}
    usual = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    yield
    for name, level in usual.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def trial(request: pytest.FixtureRequest, tmp_path: Path) -> Trial:
    seed = int(os.environ.get("FAULTS_SEED") or secrets.randbelow(1_000_000))
    log.info("%s begins, FAULTS_SEED=%d", request.node.name, seed)
    return Trial(seed, tmp_path / "history.jsonl")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Thousands of members in one process: their TLS takes half the time and memory this way."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def data() -> AsyncIterator[ServerProcess]:
    """A data folder of this test process: made once, because creating it is the slowest step."""
    async with a_server() as server:
        yield server


@pytest.fixture
async def server(data: ServerProcess) -> AsyncIterator[ServerProcess]:
    """A server that does not run yet; its folder may hold what earlier tests left."""
    fresh = ServerProcess(data.folder)
    yield fresh
    await fresh.stop()
