"""What searches find is exactly what a plain scan finds, on seeded texts and queries and by every way through the index."""

import random
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from app.storage.postgres import Postgres
from bench.corpus import Corpus
from bench.plain_scan import KINDS, ask, folded, scan
from tests.running import Server, User, serving, settings_for
from tests.searching import indexed

MESSAGES = 2500
WAYS: dict[str, dict[str, Any]] = {
    "as configured": {},
    "small blocks": {"block_messages": 3, "block_words": 60, "blocks_first": 1, "blocks_at_once": 3},
    "few looked at": {"looked_max": 200, "blocks_first": 2, "blocks_at_once": 2},
    "few blocks at a time": {"block_messages": 2, "blocks_max": 9},
    "not indexed, in parts": {"index": False, "tail_max": 300},
    "not indexed": {"index": False, "tail_max": MESSAGES},
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def server(way: str, dsn: str, redis_url: str) -> AsyncIterator[Server]:
    options = {"index_interval_s": 0.05, **WAYS[way]}
    async with serving(settings_for(dsn, redis_url, search=options)) as server:
        yield server


async def fill(postgres: Postgres, groups: list[int], own: set[int]) -> dict[int, str]:
    """Messages in all groups, some busier than others; the folded ones of `own` by id."""
    corpus, chance = Corpus(7), random.Random(7)  # noqa: S311 - must be repeatable
    texts: dict[int, str] = {}
    rows = []
    seqs = dict.fromkeys(groups, 0)
    for number in range(1, MESSAGES + 1):
        group = chance.choices(groups, [1 / (rank + 1) for rank in range(len(groups))])[0]
        seqs[group] += 1
        # As with several consumers, ids do not quite rise with the numbers.
        message_id, body = (number + 8 ^ 5) << 22, corpus.message()[:2000]
        rows.append((group, seqs[group], message_id, 1, uuid.UUID(int=number), "text", body, bytes(32), number))
        if group in own:
            texts[message_id] = folded(body)
    async with postgres.transaction() as connection:
        columns = ["group_id", "seq", "message_id", "sender_id", "client_msg_id", "kind", "body", "content_hash", "ts"]
        await connection.copy_records_to_table("messages", columns=columns, records=rows)
        await connection.executemany("UPDATE group_seq SET last_seq = $2 WHERE group_id = $1", list(seqs.items()))
    return texts


async def everything(user: User, q: str, limit: int) -> list[int]:
    ids: list[int] = []
    before: Mapping[str, Any] = {}
    while True:
        page = await user.ok("GET", "/search/messages", q=q, limit=limit, **before)
        ids += [int(item["message"]["message_id"]) for item in page["items"]]
        assert all(item["highlights"] for item in page["items"]), q
        if page["next"] is None:
            return ids
        before = {"before": page["next"]}


async def test_searches_find_what_a_plain_scan_finds(server: Server, postgres: Postgres, way: str) -> None:
    ann, bob = await server.users(2)
    own = [int(await ann.group()) for _ in range(5)]
    foreign = [int(await bob.group()) for _ in range(2)]
    texts = await fill(postgres, [own[0], foreign[0], *own[1:], foreign[1]], set(own))
    if server.settings.search.index:
        await indexed(postgres)
    chance = random.Random(11)  # noqa: S311 - must be repeatable
    bodies = list(texts.values())
    for number in range(200 if way == "as configured" else 56):
        q = ask(KINDS[number % len(KINDS)], bodies, chance)
        expected = scan(q, texts)
        assert expected
        assert await everything(ann, q, 50) == expected, q
        if len(expected) < 20:
            assert await everything(ann, q, 3) == expected, q
