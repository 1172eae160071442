"""The log of each kind in turn, for the contract of brokers."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.logs import LOGS, Connect


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
