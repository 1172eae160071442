"""Who is let in to a WebSocket: bounds per address, user and process, and a storm that comes in by and by."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import pytest

from app.protocol.frames import SUBPROTOCOL
from app.roles import PARTS
from tests.running import Server, User, serving, settings_for

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol": SUBPROTOCOL,
}
SLACK_S = 10.0
LOOK_S = 0.01


@asynccontextmanager
async def limited(dsn: str, redis_url: str, **gateway: Any) -> AsyncIterator[Server]:
    """A server that believes `X-Forwarded-For` and has these limits."""
    settings = settings_for(dsn, redis_url, gateway=gateway, http={"trusted_proxies": ("127.0.0.0/8",)})
    async with serving(settings) as server:
        yield server


@asynccontextmanager
async def connected(user: User, address: str = "127.0.0.1") -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    headers = {**user.headers, "X-Forwarded-For": address}
    async with user.server.http.ws_connect(
        user.server.ws_url(user.id), headers=headers, protocols=(SUBPROTOCOL,)
    ) as ws:
        assert (await ws.receive_json(timeout=SLACK_S))["type"] == "hello"
        yield ws


async def refused(user: User, address: str = "127.0.0.1") -> str:
    """Why an attempt is refused, as programs read it; empty: it is not."""
    headers = {**user.headers, **UPGRADE, "X-Forwarded-For": address}
    async with user.server.http.get(user.server.ws_url(user.id), headers=headers) as response:
        if response.status == 101:
            response.close()
            return ""
        assert response.status == 503
        assert 1 <= int(response.headers["Retry-After"]) <= 10
        error = (await response.json())["error"]
        assert (error["code"], error["outcome"]) == ("busy", "none")
        assert error["message"]
        return str(error["details"]["reason"])


async def until_let_in(user: User, address: str = "127.0.0.1") -> None:
    async with asyncio.timeout(SLACK_S):
        while await refused(user, address):
            await asyncio.sleep(LOOK_S)


def metric(server: Server, reason: str) -> float:
    value = sum(
        app[PARTS].metrics.registry.get_sample_value("im_connections_refused_total", {"reason": reason}) or 0.0
        for app in server.gateways
    )
    return float(value)


async def test_a_full_process_says_so(dsn: str, redis_url: str) -> None:
    async with limited(dsn, redis_url, max_connections=1) as server:
        ann = await server.user()
        async with connected(ann):
            assert await refused(ann) == "full"
            assert metric(server, "full") == 1
        await until_let_in(ann)


async def test_a_user_has_a_bounded_number_of_connections(dsn: str, redis_url: str) -> None:
    async with limited(dsn, redis_url, connections_per_user=2) as server:
        ann, bob = await server.users(2)
        async with connected(ann):
            async with connected(ann):
                assert await refused(ann) == "user"
                assert await refused(bob) == ""
            await until_let_in(ann)


async def test_an_address_has_a_bounded_number_of_connections(dsn: str, redis_url: str) -> None:
    async with limited(dsn, redis_url, connections_per_ip=1) as server:
        (ann,) = await server.users(1)
        async with connected(ann, "203.0.113.7"), connected(ann, "2001:db8:0:1::7"):
            assert await refused(ann, "203.0.113.7") == "address"
            assert await refused(ann, "::ffff:203.0.113.7") == "address"
            assert await refused(ann, "2001:db8:0:1:ffff::1") == "address"
            # What a client says of itself stands left of what the proxy saw.
            assert await refused(ann, "203.0.113.9, 203.0.113.7") == "address"
            async with connected(ann, "203.0.113.8"), connected(ann, "2001:db8:0:2::7"):
                pass
            # This machine is not counted.
            async with connected(ann), connected(ann):
                pass
        await until_let_in(ann, "203.0.113.7")


async def test_a_storm_comes_in_by_and_by_and_strangers_cannot_use_it_up(dsn: str, redis_url: str) -> None:
    settings = settings_for(
        dsn, redis_url, gateway={"admission_per_second": 1, "admission_burst": 2}, limits={"api_per_minute": 3}
    )
    async with serving(settings) as server:
        ann = await server.user()
        statuses = []
        for _ in range(6):
            async with server.http.get(server.ws_url(ann.id), headers={"Authorization": "Bearer no"}) as response:
                statuses.append(response.status)
        assert statuses == [401, 401, 401, 429, 429, 429]
        assert [await refused(ann) for _ in range(3)] == ["", "", "storm"]
        await until_let_in(ann)


async def test_one_user_cannot_use_up_the_admission_of_the_others(dsn: str, redis_url: str) -> None:
    async with limited(dsn, redis_url, admission_per_second=1, admission_burst=4, admission_user_burst=2) as server:
        ann, bob = await server.users(2)
        for headers in (ann.headers, {**ann.headers, **UPGRADE, "Sec-WebSocket-Protocol": "other"}) * 3:
            async with server.http.get(server.ws_url(ann.id), headers=headers) as response:
                assert response.status == 422
        assert [await refused(ann) for _ in range(5)] == ["", "", "often", "often", "often"]
        assert await refused(bob) == ""
        assert metric(server, "often") == 3
        await until_let_in(ann)


async def test_attempts_under_way_count(dsn: str, redis_url: str) -> None:
    settings = settings_for(
        dsn, redis_url, gateway={"max_connections": 1}, auth={"session_cache_s": 0.001}, postgres={"pool_max": 8}
    )
    async with serving(settings) as server:
        ann = await server.user()
        blocker = await asyncpg.connect(dsn)
        try:
            async with blocker.transaction():
                await blocker.execute("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
                first = asyncio.create_task(refused(ann))
                async with asyncio.timeout(SLACK_S):
                    while not first.done() and await refused_soon(ann) != "full":
                        pass
                assert not first.done()
            assert await first == ""
        finally:
            await blocker.close()


async def refused_soon(user: User) -> str:
    """Empty: there was no answer at once."""
    try:
        return await asyncio.wait_for(refused(user), 0.2)
    except TimeoutError:
        return ""


async def test_whatever_ends_a_connection_or_an_attempt_is_counted(dsn: str, redis_url: str) -> None:
    async with limited(dsn, redis_url, connections_per_ip_except=(), admission_burst=1000) as server:
        ann, bob = await server.users(2)
        async with AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(connected(user)) for user in (ann, bob) * 5]
            assert {await refused(ann), await refused(bob)} == {""}
            # No upgrade, no credential, another protocol, a binary frame, a cut line, a revoked session.
            for headers in (ann.headers, UPGRADE, {**ann.headers, **UPGRADE, "Sec-WebSocket-Protocol": "other"}):
                async with server.http.get(server.ws_url(), headers=headers) as response:
                    assert response.status in (401, 422)
            await sockets[0].send_bytes(b"\x00")
            cut = sockets[2].get_extra_info("socket")
            cut.shutdown(socket.SHUT_RDWR)
            await bob.ok("POST", "/auth/logout")
        async with asyncio.timeout(SLACK_S):
            while any(app[PARTS].gateway.admission.counts != (0, 0, 0) for app in server.gateways):
                await asyncio.sleep(LOOK_S)


@pytest.mark.parametrize("address", ["10.0.0.300", "unknown"])
async def test_what_is_no_address_does_no_harm(dsn: str, redis_url: str, address: str) -> None:
    async with limited(dsn, redis_url, connections_per_ip=1) as server:
        (ann,) = await server.users(1)
        async with connected(ann, address), connected(ann, address):
            pass


async def test_who_waits_for_a_store_while_the_gateway_begins_to_drain_is_refused(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, auth={"session_cache_s": 0.001})) as server:
        ann = await server.user()
        blocker, looker = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
        async with blocker.transaction(), asyncio.timeout(SLACK_S):
            await blocker.execute("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
            late = asyncio.create_task(refused(ann))
            while not await looker.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(LOOK_S)
            for app in server.gateways:
                app[PARTS].gateway.endpoint.accepting = False
        assert await late == "draining"
        await blocker.close()
        await looker.close()
