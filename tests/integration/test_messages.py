"""Messages through HTTP and WebSocket: the delivery contract as one client sees it. Runs on every delivery adapter."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.running import Server, serving, settings_for


@pytest.fixture(params=["memory", "redis_pubsub"])
async def server(request: pytest.FixtureRequest, dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url, delivery={"kind": request.param})) as server:
        yield server


def bodies(items: list[dict[str, Any]]) -> list[str]:
    return [item["body"] for item in items]


async def test_a_message_is_acked_pushed_and_in_history(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    async with ann.socket() as a, bob.socket() as b:
        ack = await a.send(group, "hello")
        assert (ack["type"], ack["seq"]) == ("ok", 1)
        message: dict[str, Any] = {}
        for socket in (a, b):
            packet = await socket.event("messages", group_id=group)
            assert packet["prev_seq"] == 0
            (message,) = packet["items"]
            assert (message["seq"], message["body"], message["sender_id"]) == (1, "hello", ann.id)
            assert (message["message_id"], message["ts"]) == (ack["message_id"], ack["ts"])
    assert await bob.history(group) == [message]


async def test_sends_of_one_connection_are_numbered_in_order(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    async with ann.socket() as a, bob.socket() as b:
        for number in range(50):
            await a.ws.send_json(
                {
                    "id": 1000 + number,
                    "type": "message.send",
                    "group_id": group,
                    "client_msg_id": str(uuid.uuid4()),
                    "kind": "text",
                    "body": str(number),
                }
            )
        acks = [await a.until(lambda f, n=n: f.get("id") == 1000 + n) for n in range(50)]  # type: ignore[misc]
        assert [ack["seq"] for ack in acks] == list(range(1, 51))
        seen: list[str] = []
        while len(seen) < 50:
            packet = await b.event("messages")
            assert packet["prev_seq"] == len(seen)
            seen += bodies(packet["items"])
        assert seen == [str(number) for number in range(50)]


async def test_the_same_id_at_once_over_several_ways_is_stored_once(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    key = str(uuid.uuid4())
    async with ann.socket() as a, ann.socket() as other:
        answers = await asyncio.gather(
            a.send(group, "once", key),
            other.send(group, "once", key),
            ann.post(group, "once", key),
            ann.post(group, "once", key),
        )
        found = {(answers[0]["message_id"], answers[0]["seq"]), (answers[1]["message_id"], answers[1]["seq"])}
        found |= {(body["message_id"], body["seq"]) for _, body in answers[2:]}
        assert len(found) == 1
    assert bodies(await bob.history(group)) == ["once"]


async def test_a_repeat_gets_the_first_answer_even_after_leaving(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    key = str(uuid.uuid4())
    status, first = await bob.post(group, "I was here", key)
    assert status == 201
    await bob.ok("POST", f"/groups/{group}/leave")
    assert await bob.post(group, "I was here", key) == (200, first)
    status, error = await bob.post(group, "something else", key)
    assert (status, error["error"]["code"]) == (409, "conflict")
    status, error = await bob.post(group, "new")
    assert (status, error["error"]["code"]) == (404, "not_found")


async def test_one_batch_with_conflicting_bodies_keeps_the_first(server: Server) -> None:
    (ann,) = await server.users(1)
    group = await ann.group()
    key = str(uuid.uuid4())
    results = await asyncio.gather(*(ann.post(group, f"body {n}", key) for n in range(5)))
    assert sorted(status for status, _ in results) == [201, 409, 409, 409, 409]
    assert len(await ann.history(group)) == 1


async def test_history_pages_in_both_directions(server: Server) -> None:
    (ann,) = await server.users(1)
    group = await ann.group()
    async with ann.socket() as a:
        for start in range(0, 150, 50):
            for n in range(start, start + 50):
                await a.ws.send_json(_send(group, n))
            for n in range(start, start + 50):
                await a.until(lambda f, n=n: f.get("id") == 1000 + n)  # type: ignore[misc]
    newest = await ann.ok("GET", f"/groups/{group}/messages", limit=10)
    assert [m["seq"] for m in newest["items"]] == list(range(141, 151))
    assert newest["has_more"] is True
    older = await ann.ok("GET", f"/groups/{group}/messages", before_seq=11, limit=100)
    assert [m["seq"] for m in older["items"]] == list(range(1, 11))
    assert older["has_more"] is False
    across = await ann.ok("GET", f"/groups/{group}/messages", after_seq=40, limit=100)
    assert [m["seq"] for m in across["items"]] == list(range(41, 141))
    assert across["has_more"] is True
    assert (await ann.ok("GET", f"/groups/{group}/messages", after_seq=150)) == {"items": [], "has_more": False}
    assert (await ann.ok("GET", f"/groups/{group}/messages", before_seq=1)) == {"items": [], "has_more": False}


def _send(group: str, number: int) -> dict[str, Any]:
    key = str(uuid.uuid4())
    return {
        "id": 1000 + number, "type": "message.send", "group_id": group, "client_msg_id": key, "kind": "text", "body": str(number)
    }  # fmt: skip


async def test_history_is_the_same_with_and_without_the_cache(server: Server, redis: Any) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)
    for number in range(5):
        await ann.post(group, f"message {number}")
    cached = await bob.history(group)
    await redis.flushall()
    assert await bob.history(group) == cached
    assert [m["seq"] for m in cached] == [1, 2, 3, 4, 5]
    assert (await ann.post(group, "after"))[1]["seq"] == 6


async def test_sync_and_resume_say_what_is_new(server: Server) -> None:
    ann, bob = await server.users(2)
    busy, quiet, foreign = await ann.group(bob), await ann.group(bob), await ann.group()
    for number in range(3):
        await ann.post(busy, f"{number}")
    answer = await bob.ok("POST", "/sync", {"groups": {busy: {"seq": 1}, quiet: {"seq": 0}, foreign: {"seq": 0}}})
    assert bodies(answer["groups"][busy]["items"]) == ["1", "2"]
    assert answer["groups"][busy]["last_seq"] == 3
    assert answer["groups"][quiet] == {"items": [], "last_seq": 0, "has_more": False}
    assert foreign not in answer["groups"]
    async with bob.socket() as b:
        cursors = {busy: {"seq": 1}, quiet: {"seq": 0}, foreign: {"seq": 4}}
        groups = (await b.request("resume", groups=cursors))["groups"]
    assert groups[busy]["state"] == "delta"
    assert bodies(groups[busy]["items"]) == ["1", "2"]
    assert groups[quiet] == {"state": "current", "last_seq": 0}
    assert groups[foreign]["state"] == "reset"


async def test_unread_follows_reading_and_sending(server: Server) -> None:
    ann, bob = await server.users(2)
    group = await ann.group(bob)

    async def unread() -> int:
        (mine,) = (await bob.ok("GET", "/groups"))["items"]
        return int(mine["unread"])

    for number in range(3):
        await ann.post(group, f"{number}")
    assert await unread() == 3
    await bob.ok("PUT", f"/groups/{group}/read", {"seq": 2})
    assert await unread() == 1
    await bob.ok("PUT", f"/groups/{group}/read", {"seq": 1})
    assert await unread() == 1
    await bob.post(group, "sending is reading")
    assert await unread() == 0
    async with ann.socket() as a, bob.socket() as b:
        await ann.post(group, "one more")
        await b.event("messages")
        assert (await b.request("message.read", group_id=group, seq=5))["type"] == "ok"
        event = await a.event("read", group_id=group, user_id=bob.id, seq=5)
        assert event["seq"] == 5
    assert await unread() == 0


async def test_typing_reaches_members_and_outsiders_get_not_found(server: Server) -> None:
    ann, bob, eve = await server.users(3)
    group = await ann.group(bob)
    async with ann.socket() as a, bob.socket() as b, eve.socket() as e:
        await a.ws.send_json({"type": "typing", "group_id": group})
        assert (await b.event("typing"))["user_id"] == ann.id
        await e.ws.send_json({"type": "typing", "group_id": group})
        error = await e.event("error")
        assert (error["code"], error["outcome"]) == ("not_found", "none")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("x", 201),
        ("é" * 2000, 201),
        ("字" * 2001, 422),
        ("", 422),
        (" \n", 422),
        ("a\0b", 422),
        ("e\u0301" * 2000, 201),
    ],
)
async def test_bodies_are_checked_after_normalising(server: Server, body: str, status: int) -> None:
    (ann,) = await server.users(1)
    group = await ann.group()
    assert (await ann.post(group, body))[0] == status


async def test_who_wrote_in_a_group_has_a_name_there_even_after_leaving(server: Server) -> None:
    ann, bob, cyd = await server.users(3)
    group = await ann.group(bob, cyd)
    async with bob.socket() as b:
        await b.send(group, "good bye")
    await bob.ok("POST", f"/groups/{group}/leave")
    found = await ann.ok("GET", f"/groups/{group}/senders", ids=f"{ann.id},{bob.id},{cyd.id},7")
    # Cyd never wrote there: whoever knows an id learns no name by it.
    assert [item["id"] for item in found["items"]] == [bob.id]
    assert set(found["items"][0]) == {"id", "username", "display_name"}


@pytest.mark.parametrize("ids", ["", ",", "x", "1,,2", "1," * 100 + "1", "0"])
async def test_a_list_of_ids_that_is_none_is_refused(server: Server, ids: str) -> None:
    (ann,) = await server.users(1)
    status, _ = await ann.call("GET", f"/groups/{await ann.group()}/senders", ids=ids)
    assert status == 422
