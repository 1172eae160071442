"""The log of each kind in turn, for the contract of brokers."""

from collections.abc import AsyncIterator

import pytest

from app.lifecycle import Supervisor
from app.storage.embedded.valkey import ValkeyProcess
from tests.contract.logs import LOGS, Connect, redis_streams
from tests.contract.streams import FAST


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    """Of tasks of which none may die."""
    deaths: list[str] = []
    supervisor = Supervisor(deaths.append)
    yield supervisor
    await supervisor.stop(5)
    assert deaths == []


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.xdist_group(kind)) for kind in LOGS])
def log_kind(request: pytest.FixtureRequest) -> str:
    """In a group of its own for pytest-xdist: a server that is shared is started by one worker only."""
    kind: str = request.param
    return kind


@pytest.fixture
def log_url(request: pytest.FixtureRequest, log_kind: str) -> str:
    server, _ = LOGS[log_kind]
    return request.getfixturevalue(server) if server else ""


@pytest.fixture
async def connect(log_kind: str, log_url: str) -> AsyncIterator[Connect]:
    _, log = LOGS[log_kind]
    async with log(log_url) as connect:
        yield connect


@pytest.fixture
async def connect_streams(redis_url: str) -> AsyncIterator[Connect]:
    async with redis_streams(redis_url) as connect_:
        yield connect_


@pytest.fixture
async def connect_breakable(breakable_valkey: ValkeyProcess) -> AsyncIterator[Connect]:
    async with redis_streams(breakable_valkey.url, **FAST) as connect_:
        yield connect_
