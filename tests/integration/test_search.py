"""Searching over HTTP: who finds what, page by page, whether or not the index has it already."""

# ruff: noqa: RUF001 - full-width letters are what is tested

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.storage.postgres import Postgres
from tests.running import Server, User, serving, settings_for
from tests.searching import indexed

OPTIONS = {"index_interval_s": 0.02, "block_messages": 4, "blocks_first": 1, "blocks_at_once": 2}


@pytest.fixture(params=["indexed", "not indexed"])
async def server(request: pytest.FixtureRequest, dsn: str, redis_url: str) -> AsyncIterator[Server]:
    """With an index that follows at once, and with none: the answers are the same."""
    options = {**OPTIONS, "index": request.param == "indexed"}
    async with serving(settings_for(dsn, redis_url, search=options)) as server:
        yield server


async def ready(server: Server, postgres: Postgres) -> None:
    if server.settings.search.index:
        await indexed(postgres)


async def search(user: User, q: str, **params: Any) -> dict[str, Any]:
    found: dict[str, Any] = await user.ok("GET", "/search/messages", q=q, **params)
    return found


async def bodies(user: User, q: str, **params: Any) -> list[str]:
    return [item["message"]["body"] for item in (await search(user, q, **params))["items"]]


async def test_what_was_just_sent_is_found_as_it_was_stored(server: Server, postgres: Postgres) -> None:
    (ann,) = await server.users(1)
    group = await ann.group()
    await ann.post(group, "今天用Redis做缓存")
    for _ in range(2):
        found = await search(ann, "redis 缓存")
        (item,) = found["items"]
        assert item["message"] == (await ann.history(group))[0]
        assert item["snippet"] == "今天用Redis做缓存"
        assert item["highlights"] == [[3, 8], [9, 11]]
        assert found["next"] is None
        await ready(server, postgres)


TEXTS = [
    "我们明天开会讨论新项目",
    "明天下午三点开会",
    "The quick brown fox",
    "quick, brown dogs",
    "用Redis做缓存",
    "用MyRedis做缓存",
    "ﬁle ㎏ ＡＢＣ Straße İzmir",
    "100% sure \\d _x_ 'quoted'",
    "😂😂 𠮷野家 ❤\ufe0f",
    "ones two three",
]
FINDS: dict[str, list[int]] = {
    "会": [1, 0],
    "开会": [1, 0],
    "会开": [],
    "明天开会": [0],
    "明天 开会": [1, 0],
    "qui": [3, 2],
    "QUICK fox": [2],
    "uick": [],
    '"quick brown"': [2],
    '"quick bro"': [],
    "用Redis": [4],
    "Redis做": [5, 4],
    "redis": [4],
    "用redis做缓": [4],
    "file": [6],
    "KG": [6],
    "ａｂ": [6],
    "STRASSE": [6],
    "İz": [6],
    "100%": [7],
    "\\d": [7],
    "x_": [7],
    "' or '1": [],
    "'quoted'": [7],
    "ones:* | two": [],
    "!ones": [],
    "one & two": [],
    "😂": [8],
    "吉野": [],
    "𠮷": [8],
    "❤": [8],
    "新项目 quick": [],
    "zzz": [],
}


async def test_what_is_found(server: Server, postgres: Postgres) -> None:
    (ann,) = await server.users(1)
    group = await ann.group()
    for text in TEXTS:
        assert (await ann.post(group, text))[0] == 201
    await ready(server, postgres)
    # An ampersand alone is punctuation and asks for nothing.
    expected = FINDS | {"one & two": [9]}
    assert {q: await bodies(ann, q) for q in expected} == {q: [TEXTS[n] for n in ns] for q, ns in expected.items()}


@pytest.mark.parametrize("q", ["", " ", "%", "?!", '""', "\0", "a\0", "长" * 201, "a " * 11 + "b c d e f g h i j k l"])
async def test_a_query_that_asks_for_nothing_is_refused(one: Server, q: str) -> None:
    (ann,) = await one.users(1)
    status, error = await ann.call("GET", "/search/messages", q=q)
    assert (status, error["error"]["code"]) == (422, "bad_request")


@pytest.fixture
async def one(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url, search=OPTIONS)) as server:
        yield server


async def test_only_members_find_anything(server: Server, postgres: Postgres) -> None:
    ann, bob, cyd, eve = await server.users(4)
    group, other = await ann.group(bob, cyd), await ann.group()
    await ann.post(group, "a secret among us")
    await ann.post(other, "a secret of mine")
    await ready(server, postgres)
    assert await bodies(ann, "secret") == ["a secret of mine", "a secret among us"]
    assert await bodies(ann, "secret", group_id=group) == ["a secret among us"]
    assert await bodies(bob, "secret") == ["a secret among us"]
    assert await bodies(eve, "secret") == []
    await bob.ok("POST", f"/groups/{group}/leave")
    await ann.ok("DELETE", f"/groups/{group}/members/{cyd.id}")
    for outside in (bob, cyd, eve):
        assert await bodies(outside, "secret") == []
        for which in (group, other, "12345"):
            status, error = await outside.call("GET", "/search/messages", q="secret", group_id=which)
            assert (status, error["error"]["code"]) == (404, "not_found")
    await bob.ok("POST", f"/groups/{group}/join", {})
    assert await bodies(bob, "secret") == ["a secret among us"]
    await ann.ok("DELETE", f"/groups/{group}")
    assert await bodies(bob, "secret") == []


async def test_pages_are_complete_and_without_doubles_while_messages_arrive(server: Server, postgres: Postgres) -> None:
    (ann,) = await server.users(1)
    groups = [await ann.group() for _ in range(3)]
    ids = []
    for number in range(60):
        # One in three is what is searched for: some groups busy, one almost silent.
        body = f"needle {number}" if number % 3 == 0 else f"hay {number}"
        _, message = await ann.post(groups[0] if number % 2 else groups[1 + (number % 20 == 0)], body)
        if number % 3 == 0:
            ids.append(message["message_id"])
    arriving = asyncio.ensure_future(_send_on(ann, groups))
    seen: list[str] = []
    before: dict[str, str] = {}
    try:
        while True:
            page = await search(ann, "needle", limit=3, **before)
            seen += [item["message"]["message_id"] for item in page["items"]]
            if page["next"] is None:
                break
            assert len(page["items"]) == 3
            before = {"before": page["next"]}
    finally:
        arriving.cancel()
    assert seen == sorted(set(seen), key=int, reverse=True)
    assert [message_id for message_id in seen if message_id in ids] == ids[::-1]


async def _send_on(user: User, groups: list[str]) -> None:
    while True:
        for group in groups:
            await user.post(group, "needle, later")


async def test_poison_is_indexed_and_found(server: Server, postgres: Postgres) -> None:
    (ann,) = await server.users(1)
    group = await ann.group()
    poison = [
        "长" * 2000,
        "x" * 2000,
        "😂" * 2000,
        "a\u200d" * 1000,
        "\u200d" * 50 + "k",
        "\ufdfa" * 2000,
        "a\u0301\u0327" * 600,
    ]
    poison += ["'" * 1999 + "z", "\\" * 1999 + "z", "".join(chr(0x4E00 + n) for n in range(2000)), "é ß ﬁ " * 300]
    for body in poison:
        status, answer = await ann.post(group, body)
        assert status == 201, answer
    await ready(server, postgres)
    for q, number in {
        "长长长": 0,
        "x" * 200: 1,
        "😂😂": 2,
        "a" * 100: 3,
        "k": 4,
        "ﷺ صلى": None,
        "z": 8,
        "丆万丈": 9,
        "fi ss": 10,
    }.items():
        found = (await search(ann, q))["items"]
        assert number is None or found[0]["message"]["body"] == (await ann.history(group))[number]["body"]
        for item in found:
            assert len(item["snippet"]) <= 120
            assert item["snippet"] in item["message"]["body"]
            assert all(0 <= start < end <= len(item["snippet"]) for start, end in item["highlights"])
            assert item["highlights"]


async def test_nothing_is_left_out_when_the_index_starts_late(dsn: str, redis_url: str, postgres: Postgres) -> None:
    async with serving(settings_for(dsn, redis_url, search={**OPTIONS, "index": False})) as server:
        ann, bob = await server.users(2)
        group = await ann.group(bob)
        for number in range(30):
            await ann.post(group, f"消息{number:02} end")
        name, token = ann.name, ann.token
    async with serving(settings_for(dsn, redis_url, search={**OPTIONS, "index_batch_max": 7, "tail_max": 1})) as server:
        ann = User(server, name, ann.id, token)
        await indexed(postgres)
        assert await postgres.fetchval("SELECT sum(last_seq - first_seq + 1) FROM search_block") == 30
        found = await search(ann, "消息 end", limit=50)
        assert len(found["items"]) == 30


async def test_ids_need_not_rise_with_the_numbers(dsn: str, redis_url: str, postgres: Postgres) -> None:
    """A partition moved to a machine with a slow clock."""
    async with serving(settings_for(dsn, redis_url, search={"index": False, "tail_max": 2})) as server:
        (ann,) = await server.users(1)
        group = await ann.group()
        for number in range(4):
            await ann.post(group, f"word {number}")
        await postgres.execute("UPDATE messages SET message_id = message_id + (1::bigint << 40) WHERE seq = 1")
        seen: list[str] = []
        before: dict[str, str] = {}
        while True:
            page = await search(ann, "word", **before)
            seen += [item["message"]["body"] for item in page["items"]]
            if page["next"] is None:
                break
            before = {"before": page["next"]}
        assert seen == ["word 0", "word 3", "word 2", "word 1"]


async def test_too_many_searches_are_refused_and_take_no_connections(
    dsn: str, redis_url: str, postgres: Postgres
) -> None:
    bounds = {"at_once": 1, "waiting_max": 1}
    async with serving(settings_for(dsn, redis_url, search=bounds)) as server:
        people = await server.users(3)
        for person in people:
            await person.group()
        async with postgres.transaction() as connection:
            await connection.execute("LOCK TABLE search_block IN ACCESS EXCLUSIVE MODE")
            asked = {asyncio.create_task(each.call("GET", "/search/messages", q="word")) for each in people}
            refused, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        answers = [*await asyncio.gather(*refused), *await asyncio.gather(*waiting)]
        assert [(status, body.get("error", {}).get("code")) for status, body in answers] == [
            (503, "busy"),
            (200, None),
            (200, None),
        ]


async def test_nothing_is_missing_while_the_index_is_forgotten(one: Server, postgres: Postgres) -> None:
    (ann,) = await one.users(1)
    await ann.post(await ann.group(), "a word")
    await indexed(postgres)
    async with postgres.transaction() as connection:
        # A search has seen that nothing is left to be indexed, and comes to the blocks.
        await connection.execute("LOCK TABLE search_block IN ACCESS EXCLUSIVE MODE")
        search = asyncio.create_task(bodies(ann, "word"))
        async with asyncio.timeout(20):
            while not await postgres.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
        await connection.execute("DELETE FROM search_progress")
        await connection.execute("DELETE FROM search_block")
    assert await search == ["a word"]


async def test_who_is_put_out_while_waiting_finds_nothing_said_since(
    dsn: str, redis_url: str, postgres: Postgres
) -> None:
    async with serving(settings_for(dsn, redis_url, search={"index": False, "waiting_per_user": 2})) as server:
        ann, bob = await server.users(2)
        group = await ann.group(bob)
        await ann.post(group, "word before")
        async with postgres.transaction() as connection:
            await connection.execute("LOCK TABLE search_block IN ACCESS EXCLUSIVE MODE")
            asked = {asyncio.create_task(bob.call("GET", "/search/messages", q="word")) for _ in range(4)}
            refused, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(20):
                while not await postgres.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.01)
            await ann.ok("DELETE", f"/groups/{group}/members/{bob.id}")
            await ann.post(group, "word after")
        assert [(status, body["error"]["code"]) for status, body in await asyncio.gather(*refused)] == [
            (429, "rate_limited")
        ]
        found = [[item["message"]["body"] for item in body["items"]] for _, body in await asyncio.gather(*waiting)]
        # One had begun before.
        assert sorted(found) == [[], [], ["word before"]]
