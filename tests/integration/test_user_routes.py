"""`User:Connect:{id}` says at which gateways a user is, whoever comes, goes, is killed, or empties Redis."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from app.modules.presence.routes import UserRoutes
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.redis import Redis, connect
from tests.running import RECEIVE_S, Server, User, serving, settings_for

SOON = {"route_ttl_s": 3.0, "route_renew_s": 0.2}
LOOK_S = 0.02


@pytest.fixture
async def apart(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url, gateway=SOON), apart=True) as running:
        yield running


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url, gateway=SOON)) as running:
        yield running


def home(user: User) -> str:
    """The gateway of a user."""
    return user.server.nodes[int(user.id) % len(user.server.nodes)]


def key_of(user: User) -> str:
    return f"User:Connect:{{{user.id}}}"


async def entries(redis: Redis, user: User) -> Mapping[str, float]:
    """Node → expiry in ms since 1970, as they stand there."""
    (flat,) = await redis.run([("ZRANGE", key_of(user), 0, -1, "WITHSCORES")])
    return {node.decode(): float(score) for node, score in zip(flat[::2], flat[1::2], strict=True)}


async def until_at(redis: Redis, user: User, *nodes: str) -> None:
    async with asyncio.timeout(RECEIVE_S):
        while set(await entries(redis, user)) != set(nodes):
            await asyncio.sleep(LOOK_S)


async def redis_now(redis: Redis) -> float:
    seconds, microseconds = await redis.time()
    return float(seconds) * 1000 + microseconds / 1000


async def test_who_connects_is_written_with_an_expiry_and_who_goes_is_removed(server: Server, redis: Redis) -> None:
    ann, ben = await server.users(2)
    async with ann.socket():
        await until_at(redis, ann, home(ann))
        now = await redis_now(redis)
        assert now < (await entries(redis, ann))[home(ann)] <= now + 3000
        assert 0 < await redis.pttl(key_of(ann)) <= 3000
        assert await entries(redis, ben) == {}
    await until_at(redis, ann)
    assert not await redis.exists(key_of(ann))


async def test_a_second_device_on_the_same_gateway_keeps_the_entry(server: Server, redis: Redis) -> None:
    ann, ben = await server.users(2)
    async with ann.socket():
        async with ann.socket(), ben.socket():
            await until_at(redis, ann, home(ann))
            await until_at(redis, ben, home(ben))
        # Both went in this order, and are written in it.
        await until_at(redis, ben)
        assert set(await entries(redis, ann)) == {home(ann)}
    await until_at(redis, ann)


async def test_each_gateway_has_an_entry_of_its_own(apart: Server, redis: Redis) -> None:
    ann = await apart.user()
    routes = UserRoutes(redis, "reader", ttl_s=1)
    async with ann.socket(gateway=0):
        async with ann.socket(gateway=1):
            await until_at(redis, ann, *apart.nodes)
            assert set((await routes.nodes_of([int(ann.id)]))[int(ann.id)]) == set(apart.nodes)
        await until_at(redis, ann, apart.nodes[0])
    await until_at(redis, ann)


async def test_entries_are_renewed_and_come_back_after_redis_was_emptied(server: Server, redis: Redis) -> None:
    ann = await server.user()
    async with ann.socket():
        await until_at(redis, ann, home(ann))
        first = (await entries(redis, ann))[home(ann)]
        async with asyncio.timeout(RECEIVE_S):
            while (await entries(redis, ann))[home(ann)] <= first:
                await asyncio.sleep(LOOK_S)
        await redis.flushall()
        await until_at(redis, ann, home(ann))


async def test_what_a_killed_gateway_left_is_pruned_and_not_read(server: Server, redis: Redis) -> None:
    ann, ben = await server.users(2)
    now = await redis_now(redis)
    for user in (ann, ben):
        await redis.zadd(key_of(user), {"killed": now - 1, "lives": now + 60_000})
    routes = UserRoutes(redis, "reader", ttl_s=1)
    assert await routes.nodes_of([int(ann.id), 4]) == {int(ann.id): ["lives"], 4: []}
    async with ann.socket():
        await until_at(redis, ann, "lives", home(ann))
    await until_at(redis, ann, "lives")
    await routes.write([], [int(ben.id)])
    assert set(await entries(redis, ben)) == {"lives"}


async def test_who_leaves_is_written_when_the_gateway_ends(dsn: str, redis_url: str, redis: Redis) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        ann = await server.user()
        async with ann.socket() as a:
            await until_at(redis, ann, home(ann))
            closed = asyncio.ensure_future(a.closed())
            for app in server.apps:
                await app.shutdown()
            assert await closed == 4002
    assert await entries(redis, ann) == {}


async def test_a_connection_does_not_wait_for_redis(dsn: str, breakable_valkey: ValkeyProcess) -> None:
    async with serving(settings_for(dsn, breakable_valkey.url, gateway=SOON)) as server:
        ann, ben = await server.users(2)
        redis = connect(breakable_valkey.url, pool_max=1, connect_timeout_s=5, command_timeout_s=5)
        try:
            async with ben.socket():
                await until_at(redis, ben, home(ben))
                await breakable_valkey.stop()
                async with ann.socket() as a:
                    assert (await a.request("ping"))["type"] == "ok"
                    await breakable_valkey.start()
                    await until_at(redis, ann, home(ann))
                    await until_at(redis, ben, home(ben))
        finally:
            await redis.aclose()
