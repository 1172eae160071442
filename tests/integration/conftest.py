"""One cluster behind Nginx for all tests of the proxy, made when the first of them asks for it."""

from collections.abc import AsyncIterator

import pytest_asyncio

from local.cluster import Cluster
from tests.proxied import proxied_cluster


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def proxied() -> AsyncIterator[Cluster]:
    """Running; a test that kills a node starts it again."""
    async with proxied_cluster() as running:
        yield running
