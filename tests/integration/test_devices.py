"""`gateway.devices = "newest"`: whoever connects ends the older connections of the same user, wherever they are."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.client.chat.texts import Texts
from app.client.client import Client
from app.client.errors import SessionEnded
from app.protocol.endpoint import Principal
from app.storage.redis import Redis
from app.web.gateway.devices import LINGER_S
from app.web.gateway.loader import Loader, Welcome
from tests.running import RECEIVE_S, Server, Socket, User, serving, settings_for

ROUNDS = 5


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    options = {"devices": "newest", "route_ttl_s": 3.0, "route_renew_s": 0.3}
    async with serving(settings_for(dsn, redis_url, gateway=options), apart=True) as running:
        yield running


async def end_of(socket: Socket) -> tuple[int | None, str | None]:
    """(close code, reason in `kick`)."""
    code = await socket.closed()
    return code, next((frame["reason"] for frame in socket.kept if frame["type"] == "kick"), None)


async def test_the_newest_connection_stays_on_one_gateway_and_on_two(server: Server) -> None:
    ann, ben = await server.users(2)
    async with ben.socket(gateway=0) as other, ann.socket(gateway=0) as first, ann.socket(gateway=0) as second:
        assert await end_of(first) == (4500, "replaced")
        async with ann.socket(gateway=1) as third:
            assert await end_of(second) == (4500, "replaced")
            assert (await third.request("ping"))["type"] == "ok"
            assert (await other.request("ping"))["type"] == "ok"


async def test_two_at_the_same_instant_leave_exactly_one(server: Server) -> None:
    ann = await server.user()
    for _ in range(ROUNDS):
        async with ann.socket(hello=False, gateway=0) as a, ann.socket(hello=False, gateway=1) as b:
            ends = [asyncio.ensure_future(end_of(socket)) for socket in (a, b)]
            done, going_on = await asyncio.wait(ends, timeout=RECEIVE_S, return_when=asyncio.FIRST_COMPLETED)
            assert [task.result() for task in done] == [(4500, "replaced")]
            assert len(going_on) == 1
            going_on.pop().cancel()


async def test_who_gave_up_while_the_store_was_slow_ends_nobody(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await server.user()
    slow, served = asyncio.Event(), asyncio.Event()
    load = Loader.load

    async def load_first_late(loader: Loader, principal: Principal) -> Welcome:
        first, welcome = not slow.is_set(), await load(loader, principal)
        slow.set()
        if first:
            await served.wait()
        return welcome

    monkeypatch.setattr(Loader, "load", load_first_late)
    async with ann.socket(hello=False, gateway=0) as first:
        await slow.wait()
        response = first.ws._response
        assert response.connection is not None
        assert response.connection.transport is not None
        response.connection.transport.abort()
        async with ann.socket(gateway=0) as second:
            served.set()
            # Longer than it takes to tell another gateway.
            await asyncio.sleep(10 * LINGER_S)
            assert (await second.request("ping"))["type"] == "ok"


async def test_the_reference_client_says_why_and_stays_away(server: Server) -> None:
    ann = await server.user()
    url = server.ws_url("0")
    async with Client(server.url, ann.token, ws_url=url) as client, ann.socket(gateway=1) as newer:
        with pytest.raises(SessionEnded) as ended:
            await asyncio.wait_for(all_events(client), RECEIVE_S)
        assert (ended.value.code, ended.value.reason, client.state) == (4500, "replaced", "ended")
        assert Texts("zh").error(ended.value).startswith("你已在其他地方连接")
        assert (await newer.request("ping"))["type"] == "ok"


async def test_a_word_that_was_lost_is_made_good_by_the_renewal_of_the_routes(
    server: Server, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await server.user()
    async with ann.socket(gateway=0) as first:
        with monkeypatch.context() as deaf:
            for hub in server.hubs:
                deaf.setattr(hub, "on_blob", lambda *_: None)
            async with ann.socket(gateway=1) as second:
                await until_two(redis, ann)
                deaf.undo()
                assert await end_of(first) == (4500, "replaced")
                assert (await second.request("ping"))["type"] == "ok"


async def all_events(client: Client) -> None:
    async for _ in client.events():
        pass


async def until_two(redis: Redis, user: User) -> None:
    async with asyncio.timeout(RECEIVE_S):
        while await redis.zcard(f"User:Connect:{{{user.id}}}") < 2:
            await asyncio.sleep(0.02)
