"""What only the registry in Redis does: its clock may be set."""

import re
from collections.abc import AsyncIterator

import pytest

from app.cluster.redis_registry import KEY, RedisRegistry
from app.storage.redis import Redis, connect
from tests.contract.registries import ids, node

LEASE_S = 60.0


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = connect(redis_url, pool_max=1, connect_timeout_s=2, command_timeout_s=2)
    await client.delete(KEY)
    yield client
    await client.aclose()


@pytest.fixture
async def registry(redis_url: str) -> AsyncIterator[RedisRegistry]:
    client = connect(redis_url, pool_max=1, connect_timeout_s=2, command_timeout_s=2)
    registry = RedisRegistry(client, lease_s=LEASE_S, timeout_s=15)
    yield registry
    await registry.stop()


async def set_clock(client: Redis, by_s: float) -> None:
    """Which looks from within as if everything was written at another time."""
    for field, value in (await client.hgetall(KEY)).items():
        if isinstance(value, bytes) and (moved := re.fullmatch(rb"(\d{13,})(| .*)", value)):
            await client.hset(KEY, field, b"%d%s" % (int(moved[1]) - round(by_s * 1000), moved[2]))


@pytest.mark.parametrize("by_s", [LEASE_S - 5, LEASE_S + 5, 3600])
async def test_a_clock_that_jumps_ahead_kills_nobody(client: Redis, registry: RedisRegistry, by_s: float) -> None:
    before = await registry.renew(node("a"))
    await set_clock(client, by_s)
    after = await registry.read()
    assert after.incarnation != before.incarnation
    again = await registry.renew(node("a"))
    assert ids(again) == ["a"]
    assert again.incarnation == after.incarnation


async def test_a_clock_that_goes_back_keeps_nobody(client: Redis, registry: RedisRegistry) -> None:
    before = await registry.renew(node("a"))
    await set_clock(client, -3600)
    after = await registry.read()
    assert after == before
    assert LEASE_S / 2 < (await registry.leases())["a"] <= LEASE_S + LEASE_S / 6
