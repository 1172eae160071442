"""Processes that know no gateway yet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from app.cluster.redis_registry import RedisRegistry
from app.parts import Parts
from app.roles import PARTS
from app.settings import Role
from app.storage.redis import connect
from tests.contract.registries import node
from tests.running import PASSWORD, one, settings_for

NOBODY = "http://127.0.0.1:9"
SLACK_S = 15.0
"""A busy machine is no defect."""
LOOK_S = 0.05


@pytest.fixture
async def registry(redis_url: str) -> AsyncIterator[RedisRegistry]:
    client = connect(redis_url, pool_max=1, connect_timeout_s=2, command_timeout_s=2)
    await client.delete("Gateway:Nodes")
    registry = RedisRegistry(client, lease_s=60, timeout_s=SLACK_S)
    yield registry
    await registry.stop()


@asynccontextmanager
async def apart(role: Role, dsn: str, redis_url: str, **sections: dict[str, Any]) -> AsyncIterator[tuple[Parts, str]]:
    """One process of this role."""
    deaths: list[str] = []
    kinds = {"broker": {"kind": "redis_streams"}, "delivery": {"kind": "redis_pubsub"}}
    settings = settings_for(dsn, redis_url, **kinds, **sections).model_copy(update={"role": role})
    async with one(settings, deaths.append, None) as [(app, url)]:
        yield app[PARTS], url
    assert deaths == []


async def test_people_log_in_before_a_gateway_is_there(dsn: str, redis_url: str, registry: RedisRegistry) -> None:
    async with apart("api", dsn, redis_url, cluster={"registry": "redis"}) as (_, url), aiohttp.ClientSession() as http:
        body = {"username": "early", "password": PASSWORD}
        async with http.post(f"{url}/api/v1/auth/register", json=body) as response:
            answer = await response.json()
        assert (response.status, answer["gateway"]["node"]) == (201, "")
        headers = {"Authorization": f"Bearer {answer['token']}"}

        async with http.get(f"{url}/api/v1/gateway", headers=headers) as response:
            refused = (await response.json())["error"]
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert (refused["code"], refused["outcome"]) == ("busy", "none")
        await registry.renew(node("g1"))
        async with asyncio.timeout(SLACK_S):
            while response.status != 200:
                await asyncio.sleep(LOOK_S)
                async with http.get(f"{url}/api/v1/gateway", headers=headers) as response:
                    answer = await response.json()
        assert answer == {"url": node("g1").ws_url, "node": "g1"}


@pytest.mark.parametrize(("role", "waits"), [("api", {"registry": "waiting for the registry"}), ("consumer", {})])
async def test_a_registry_that_is_away_stops_nobody_from_starting(
    dsn: str, redis_url: str, role: Role, waits: dict[str, str]
) -> None:
    async with apart(
        role,
        dsn,
        redis_url,
        cluster={"registry": "etcd", "startup_wait_s": 0.1},
        etcd={"endpoints": (NOBODY,)},
        grpc={"answers": True},
    ) as (parts, _):
        assert parts.readiness.reasons == waits
