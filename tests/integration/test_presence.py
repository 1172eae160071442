"""Who shares a small group learns who is online; nobody else does, and nobody hears of a page that is loaded again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from app.modules.presence.announcer import TICK_S
from app.modules.presence.online import KEY, OnlineUsers
from app.modules.presence.routes import UserRoutes
from app.protocol.magpie_pb2 import Blob
from app.storage.postgres import Postgres
from app.storage.redis import Redis
from app.web.gateway.watcher import Watcher
from tests.running import RECEIVE_S, Server, User, serving, settings_for

GRACE_S = 2.0
OPTIONS = {"small_group_members": 3, "grace_s": GRACE_S, "sweep_s": 0.05, "count_s": 0.2}
ROUTES = {"route_ttl_s": 15.0, "route_renew_s": 0.2}
"""A busy machine that stops for seconds loses nobody: routes end much later than the grace."""
MINUTE_MS = 60_000
LOOK_S = 0.02
LONG_ENOUGH_S = GRACE_S + 1.0 + 2 * TICK_S
"""Whoever went would have been told of by then."""


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url, presence=OPTIONS, gateway=ROUTES)) as running:
        yield running


async def snapshot(user: User, group: str) -> dict[str, tuple[str, int | None]]:
    """Member → (state, last_seen)."""
    answer = await user.ok("GET", f"/groups/{group}/presence")
    members = {one["user_id"]: (one["state"], one["last_seen"]) for one in answer["members"]}
    assert answer["online"] == sum(state == "online" for state, _ in members.values())
    return members


async def until_state(reader: User, group: str, user: User, state: str) -> int | None:
    """Wait until it is read so; the last_seen."""
    async with asyncio.timeout(RECEIVE_S):
        while (found := (await snapshot(reader, group))[user.id])[0] != state:
            await asyncio.sleep(LOOK_S)
    return found[1]


async def now_ms(redis: Redis) -> int:
    seconds, microseconds = await redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


async def test_others_of_a_small_group_are_told_and_can_read_it(server: Server, redis: Redis) -> None:
    ann, ben = await server.users(2)
    group = await ann.group(ben)
    assert await snapshot(ann, group) == {ann.id: ("offline", None), ben.id: ("offline", None)}
    async with ann.socket(presence=True) as a:
        async with ben.socket():
            came = await a.event("presence", user_id=ben.id)
            assert (came["state"], came["last_seen"]) == ("online", None)
            assert await snapshot(ann, group) == {ann.id: ("online", None), ben.id: ("online", None)}
            before = await now_ms(redis)
        went = await a.event("presence", user_id=ben.id)
        assert went["state"] == "offline"
        assert went["ts"] > came["ts"]
        assert went["last_seen"] % MINUTE_MS == 0
        assert before - MINUTE_MS < went["last_seen"] <= went["ts"]
        assert await until_state(ann, group, ben, "offline") == went["last_seen"]
        # Nobody is told of themselves.
        assert all(frame.get("user_id") != ann.id for frame in a.kept)


async def test_last_seen_outlives_redis_and_never_moves_back(server: Server, redis: Redis, postgres: Postgres) -> None:
    ann, ben = await server.users(2)
    group = await ann.group(ben)
    async with ann.socket(presence=True) as a:
        async with ben.socket():
            await a.event("presence", user_id=ben.id, state="online")
        seen = (await a.event("presence", user_id=ben.id, state="offline"))["last_seen"]
        await redis.flushall()
        assert await until_state(ann, group, ann, "online") is None
        assert (await snapshot(ann, group))[ben.id] == ("offline", seen)
    await postgres.execute("UPDATE last_seen SET seen_at = seen_at + interval '1 hour' WHERE user_id = $1", int(ben.id))
    async with ann.socket(presence=True) as a:
        async with ben.socket():
            await a.event("presence", user_id=ben.id, state="online")
        await a.event("presence", user_id=ben.id, state="offline")
    assert (await snapshot(ann, group))[ben.id] == ("offline", seen + 60 * MINUTE_MS)


async def test_a_page_loaded_again_and_a_second_device_are_no_news(server: Server) -> None:
    ann, ben = await server.users(2)
    await ann.group(ben)
    async with ann.socket(presence=True) as a:
        async with ben.socket():
            await a.event("presence", user_id=ben.id, state="online")
        async with ben.socket():
            async with ben.socket():
                pass
            await asyncio.sleep(LONG_ENOUGH_S)
            assert [frame for frame in await a.nothing_but_pong() if frame["type"] == "presence"] == []
        assert (await a.event("presence"))["state"] == "offline"


async def test_a_move_to_another_gateway_is_no_news_and_both_tell_the_same(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, presence=OPTIONS, gateway=ROUTES), apart=True) as server:
        ann, ben, cem = await server.users(3)
        await ann.group(ben, cem)
        async with ann.socket(gateway=0, presence=True) as a, cem.socket(gateway=1, presence=True) as c:
            async with ben.socket(gateway=0):
                for socket in (a, c):
                    await socket.event("presence", user_id=ben.id, state="online")
            async with ben.socket(gateway=1):
                await asyncio.sleep(LONG_ENOUGH_S)
                for socket in (a, c):
                    assert [f for f in await socket.nothing_but_pong() if f.get("user_id") == ben.id] == []
            ends = [await socket.event("presence", user_id=ben.id) for socket in (a, c)]
            assert ends[0] == ends[1]
            assert ends[0]["state"] == "offline"


async def test_users_of_a_gateway_that_was_killed_go_offline_when_its_entries_end(server: Server, redis: Redis) -> None:
    ann, ben, cem = await server.users(3)
    group = await ann.group(ben, cem)
    # Both were connected to a gateway that is not there any more; one of them to a second one as well.
    lost = [int(ben.id), int(cem.id)]
    await UserRoutes(redis, "killed", ttl_s=1).write(lost, [])
    await UserRoutes(redis, "lives", ttl_s=60).write([int(cem.id)], [])
    await OnlineUsers(redis, ttl_s=1, grace_s=1).write(lost, [])
    async with ann.socket(presence=True) as a:
        assert (await snapshot(ann, group))[ben.id] == ("online", None)
        went = await a.event("presence", user_id=ben.id)
        assert went["state"] == "offline"
        assert (await snapshot(ann, group))[cem.id] == ("online", None)
        assert [frame for frame in await a.nothing_but_pong() if frame.get("user_id") == cem.id] == []


async def test_after_redis_was_emptied_everybody_is_online_again_and_leaving_is_told(
    server: Server, redis: Redis
) -> None:
    ann, ben = await server.users(2)
    group = await ann.group(ben)
    async with ann.socket(presence=True) as a:
        async with ben.socket():
            await a.event("presence", user_id=ben.id, state="online")
            await redis.flushall()
            await until_state(ann, group, ben, "online")
        await a.event("presence", user_id=ben.id, state="offline")


async def test_nobody_who_is_there_is_told_of_as_gone_because_redis_is_old(server: Server, redis: Redis) -> None:
    ann, ben = await server.users(2)
    await ann.group(ben)
    async with ann.socket(presence=True) as a, ben.socket():
        await a.event("presence", user_id=ben.id, state="online")
        for _ in range(3):
            # As restored from an hour ago.
            await redis.delete(f"User:Connect:{{{ben.id}}}")
            await redis.zadd(KEY, {ben.id: await now_ms(redis) - 3_600_000})
            assert (await a.event("presence", user_id=ben.id))["state"] == "online"


async def test_who_left_is_told_of_although_redis_was_emptied_meanwhile(server: Server, redis: Redis) -> None:
    ann, ben = await server.users(2)
    await ann.group(ben)
    async with ann.socket(presence=True) as a:
        await OnlineUsers(redis, ttl_s=60, grace_s=0.1).write([], [int(ben.id)])
        assert (await a.event("presence", user_id=ben.id))["state"] == "offline"


async def test_outsiders_former_members_and_the_banned_learn_nothing(server: Server) -> None:
    ann, ben, out, gone = await server.users(4)
    group = await ann.group(ben, gone)
    async with ann.socket(presence=True) as a, out.socket(presence=True) as o, gone.socket(presence=True) as g:
        await a.event("presence", user_id=gone.id, state="online")
        await ann.ok("PUT", f"/groups/{group}/bans/{gone.id}")
        async with ben.socket():
            await a.event("presence", user_id=ben.id, state="online")
        await a.event("presence", user_id=ben.id, state="offline")
        for socket in (o, g):
            assert [frame for frame in await socket.nothing_but_pong() if frame.get("user_id") == ben.id] == []
    for user in (out, gone):
        status, body = await user.call("GET", f"/groups/{group}/presence")
        assert (status, body["error"]["code"]) == (404, "not_found")


async def test_in_large_groups_only_the_number_is_known(server: Server) -> None:
    ann, ben, cem, *others = await server.users(5)
    group = await ann.group(ben, cem, *others)
    async with ann.socket(presence=True) as a:
        await a.request("group.focus", group_id=group)
        async with ben.socket(), ben.socket():
            await a.event("presence.count", group_id=group, online=2)
            async with cem.socket(presence=True) as c:
                await a.event("presence.count", group_id=group, online=3)
                answer = await cem.ok("GET", f"/groups/{group}/presence")
                assert (answer["online"], answer["members"]) == (3, None)
                # Does not look at the group.
                assert [frame for frame in await c.nothing_but_pong() if frame["type"].startswith("presence")] == []
            await a.event("presence.count", group_id=group, online=2)
        assert [frame for frame in a.kept if frame["type"] == "presence"] == []


async def test_switched_off_nothing_is_written_read_or_sent(
    dsn: str, redis_url: str, redis: Redis, postgres: Postgres
) -> None:
    async with serving(settings_for(dsn, redis_url, presence=OPTIONS | {"enabled": False}, gateway=ROUTES)) as server:
        ann, ben = await server.users(2)
        group = await ann.group(ben)
        async with ann.socket(hello=False, presence=True) as a:
            assert "presence" not in (await a.event("hello"))["features"]
            async with ben.socket():
                async with asyncio.timeout(RECEIVE_S):
                    while not await redis.exists(f"User:Connect:{{{ben.id}}}"):
                        await asyncio.sleep(LOOK_S)
            await asyncio.sleep(LONG_ENOUGH_S)
            assert [frame["type"] for frame in await a.nothing_but_pong()] == []
        assert (await ann.call("GET", f"/groups/{group}/presence"))[0] == 404
        assert not await redis.exists(KEY)
        assert await postgres.fetch("SELECT FROM last_seen") == []


class Ear(Watcher):
    """Hears how many are told of at once."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def on_control(self, blob: Blob) -> None:
        if blob.presence:
            self.heard.append(len(blob.presence))


async def test_a_storm_is_told_bit_by_bit(dsn: str, redis_url: str, redis: Redis) -> None:
    slow = OPTIONS | {"announced_per_second": 8, "small_group_members": 20}
    async with serving(settings_for(dsn, redis_url, presence=slow, gateway=ROUTES)) as server:
        ann, *people = await server.users(8)
        await ann.group(*people)
        ear = Ear()
        server.hubs[0].watchers.append(ear)
        async with ann.socket(presence=True) as a:
            async with AsyncExitStack() as storm:
                for person in people:
                    await storm.enter_async_context(person.socket())
                for person in people:
                    await a.event("presence", user_id=person.id, state="online")
            for person in people:
                await a.event("presence", user_id=person.id, state="offline")
            assert [frame for frame in await a.nothing_but_pong() if frame["type"] == "presence"] == []
        # Ann herself, too.
        assert sum(ear.heard) == 1 + 2 * len(people)
        assert max(ear.heard) == 8 * TICK_S
