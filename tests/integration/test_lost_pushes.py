"""Push is a hint, pull is the truth: what is lost on the way down is announced, and nobody sees what is not theirs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.delivery.base import Channel
from app.delivery.redis_pubsub import RedisPubSubDelivery
from app.lifecycle import Readiness, Supervisor
from app.metrics import Metrics
from app.storage.redis import connect
from tests.cable import cable_to
from tests.lossy import LossyDelivery
from tests.running import Server, serving, settings_for

QUICK = {"heads_interval_s": 0.2, "heads_active_s": 1.0}


@asynccontextmanager
async def lossy_server(dsn: str, redis_url: str) -> AsyncIterator[tuple[Server, LossyDelivery]]:
    delivery = LossyDelivery()
    async with serving(settings_for(dsn, redis_url, delivery=QUICK), delivery) as server:
        yield server, delivery


@pytest.fixture
async def lossy(dsn: str, redis_url: str) -> AsyncIterator[tuple[Server, LossyDelivery]]:
    async with lossy_server(dsn, redis_url) as pair:
        yield pair


async def test_a_lost_packet_is_announced_with_the_next_message(lossy: tuple[Server, LossyDelivery]) -> None:
    server, delivery = lossy
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    async with ann.socket() as a, bob.socket() as b:
        await a.send(group, "one")
        await b.event("messages")
        delivery.lose = lambda channel, blob: bool(blob.messages)
        await a.send(group, "lost")
        delivery.lose = lambda channel, blob: False
        await a.send(group, "three")
        gap = await b.event("gap", group_id=group)
        assert gap["from_seq"] <= 2 <= gap["to_seq"]
        assert gap["pull_within_ms"] > 0


async def test_the_last_message_before_a_quiet_time_is_announced(lossy: tuple[Server, LossyDelivery]) -> None:
    server, delivery = lossy
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    async with ann.socket() as a, bob.socket() as b:
        await delivery.without_holes()
        delivery.lose = lambda channel, blob: bool(blob.messages)
        ack = await a.send(group, "the last one")
        assert ack["seq"] == 1
        gap = await b.event("gap", group_id=group)
        assert (gap["from_seq"], gap["to_seq"]) == (1, 1)
    assert [m["body"] for m in await bob.history(group)] == ["the last one"]


async def test_a_hole_in_the_numbers_alone_is_found(lossy: tuple[Server, LossyDelivery]) -> None:
    server, delivery = lossy
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    async with ann.socket() as a, bob.socket() as b:
        # No head ever speaks of the message.
        delivery.lose = lambda channel, blob: bool(blob.messages or blob.heads)
        await a.send(group, "the last one")
        gap = await b.event("gap", group_id=group)
        assert (gap["from_seq"], gap["to_seq"]) == (1, 1)


async def test_a_kicked_member_gets_and_posts_nothing_though_the_notice_is_lost(
    lossy: tuple[Server, LossyDelivery],
) -> None:
    server, delivery = lossy
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    async with ann.socket() as a, bob.socket() as b:
        await a.send(group, "welcome")
        await b.event("messages")
        delivery.lose = lambda channel, blob: bool(blob.events or blob.heads or not blob.messages)
        await ann.ok("DELETE", f"/groups/{group}/members/{bob.id}")
        assert delivery.lost
        await a.send(group, "not for bob")
        await a.event("messages", prev_seq=1)
        assert (await b.send(group, "still here?"))["code"] == "not_found"
        assert [frame["type"] for frame in await b.nothing_but_pong() if frame["type"] != "group.left"] == []


async def test_a_head_alone_makes_a_gateway_look_at_its_members_again(lossy: tuple[Server, LossyDelivery]) -> None:
    server, delivery = lossy
    ann, bob, eve = await server.users(3)
    group = await ann.group(bob, eve)
    async with bob.socket() as b:
        await delivery.without_holes()
        delivery.lose = lambda channel, blob: bool(blob.events)
        await ann.ok("DELETE", f"/groups/{group}/members/{bob.id}")
        delivery.lose = lambda channel, blob: False
        async with asyncio.timeout(5):
            while True:
                await b.ws.send_json({"type": "typing", "group_id": group})
                if [f for f in await b.nothing_but_pong() if f["type"] == "error" and f["code"] == "not_found"]:
                    break
                await asyncio.sleep(0.05)


async def test_a_lost_join_is_found_and_messages_follow(lossy: tuple[Server, LossyDelivery]) -> None:
    server, delivery = lossy
    ann, bob = await server.users(2)
    group = await ann.group()
    async with bob.socket() as b:
        delivery.lose = lambda channel, blob: bool(blob.events)
        await bob.ok("POST", f"/groups/{group}/join", {})
        delivery.lose = lambda channel, blob: False
        async with ann.socket() as a:
            async with asyncio.timeout(5):
                seen: list[dict[str, Any]] = []
                while not seen:
                    await a.send(group, "is bob here?")
                    seen = [f for f in await b.nothing_but_pong() if f["type"] in ("messages", "gap")]
                    await asyncio.sleep(0.05)


async def test_a_lost_revocation_still_closes_the_socket(lossy: tuple[Server, LossyDelivery]) -> None:
    server, delivery = lossy
    ann = await server.user()
    async with ann.socket() as a:
        delivery.lose = lambda channel, blob: channel is Channel.CONTROL and blob.HasField("revoke")
        await ann.ok("POST", "/auth/logout")
        delivery.lose = lambda channel, blob: False
        async with asyncio.timeout(5):
            assert await a.closed() == 4501


@pytest.mark.parametrize("group_delivery", ["broadcast", "routed"])
async def test_a_cut_subscription_loses_nothing_in_the_end(dsn: str, redis_url: str, group_delivery: str) -> None:
    settings = settings_for(dsn, redis_url, delivery={"kind": "redis_pubsub", "group": group_delivery, **QUICK})
    async with serving(settings) as server:
        ann, bob = await server.users(2)
        group = await ann.group(bob)
        admin = connect(redis_url, pool_max=1, connect_timeout_s=1, command_timeout_s=1)
        async with ann.socket() as a, bob.socket() as b:
            have = 0
            for number in range(30):
                if number % 5 == 3:
                    await admin.client_kill_filter(_type="pubsub")
                status, message = await ann.post(group, f"{number}")
                # An answer that was lost with the subscription is asked for again, long before the send times out.
                assert status in (200, 201), message
            async with asyncio.timeout(15):
                while have < 30:
                    packet = await b.until(lambda f: f["type"] in ("messages", "gap"))
                    if packet["type"] == "messages" and packet["prev_seq"] <= have:
                        have = max(have, packet["items"][-1]["seq"])
                    else:
                        have = max([have] + [m["seq"] for m in await bob.history(group, after_seq=have, limit=100)])
            await a.request("ping")
        await admin.aclose()
    assert have == 30


async def test_who_is_connected_to_a_gateway_cut_off_from_redis_misses_nothing(dsn: str, redis_url: str) -> None:
    deaths: list[str] = []
    async with cable_to(urlsplit(redis_url).path) as cable:
        whole, cut = (
            connect(url, pool_max=1, connect_timeout_s=1, command_timeout_s=1)
            for url in (redis_url, f"redis://127.0.0.1:{cable.port}/0")
        )
        supervisor = Supervisor(deaths.append)
        delivery = RedisPubSubDelivery(
            whole, cut, supervisor, Readiness(), Metrics(), reconnect_max_s=0.2, timeout_s=0.5
        )
        settings = settings_for(dsn, redis_url, delivery=QUICK | {"cut_compare_s": 0.5})
        async with serving(settings, delivery) as server:
            ann, bob, eve = await server.users(3)
            group = await ann.group(bob, eve)
            async with bob.socket() as b, eve.socket() as e:
                cable.cut()
                # Its answer goes where the others do.
                sending = asyncio.ensure_future(ann.post(group, "unheard"))
                gap = await b.event("gap", group_id=group)
                assert (gap["from_seq"], gap["to_seq"]) == (1, 1)
                assert [m["body"] for m in await bob.history(group)] == ["unheard"]
                await eve.ok("POST", "/auth/logout")
                assert await e.closed() == 4501
                assert (await b.request("ping"))["type"] == "ok"
                cable.mend()
                status, message = await sending
                assert status in (200, 201), message
        await supervisor.stop(5)
    assert deaths == []
