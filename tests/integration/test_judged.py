"""A send that comes again after a crash: stored is found, refused stays refused. And who was succeeded stores nothing."""

import hashlib
import uuid
from collections.abc import Sequence

import pytest

from app.consumer.fence import Fence, StaleOwner
from app.consumer.store import BatchStore
from app.lifecycle import CrashPoint
from app.modules.messages.models import Draft, Send, from_envelope, to_envelope
from app.parts import Parts
from app.protocol.magpie_pb2 import Origin
from app.roles import PARTS
from tests.running import User, serving, settings_for

BROKER = "a log of this test"


async def successor(parts: Parts, fresh: bool, partitions: Sequence[int] = (0,)) -> tuple[Fence, BatchStore]:
    """A consumer that has just taken these partitions."""
    fence = Fence(parts.postgres, BROKER, "test")
    await fence.on_assigned(partitions, partitions if fresh else [])
    store = BatchStore(
        parts.postgres,
        parts.messages.repository,
        parts.groups.states,
        parts.consumer._store._proposer,
        parts.words,
        parts.ids,
        fence,
        CrashPoint(""),
        parts.metrics,
    )
    return fence, store


def record(group: str, sender: User, body: str) -> bytes:
    digest = hashlib.sha256(b"text\0" + body.encode()).digest()
    return to_envelope(Draft(int(group), int(sender.id), uuid.uuid4(), "text", body, digest), Origin())


def read(fence: Fence, value: bytes, offset: int) -> Send:
    return from_envelope(value, judged=fence.judged(0, offset))


async def test_a_refusal_is_not_taken_back_when_its_record_comes_again(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        ann, bob = await server.users(2)
        group = await ann.group()
        stored, refused = record(group, ann, "hello"), record(group, bob, "let me in")

        fence, store = await successor(server.app[PARTS], fresh=True)
        first = await store.store([read(fence, stored, 0), read(fence, refused, 1)], {0: 1})
        assert [o.error and o.error.code for o in first.outcomes] == [None, "not_found"]

        await bob.ok("POST", f"/groups/{group}/join", {})
        fence, store = await successor(server.app[PARTS], fresh=False)
        again = await store.store([read(fence, stored, 0), read(fence, refused, 1)], {0: 1})
        assert again.outcomes[0].repeat
        assert again.outcomes[0].stored == first.outcomes[0].stored
        assert again.outcomes[1].error is not None
        assert (again.outcomes[1].error.code, again.outcomes[1].error.outcome) == ("busy", "unknown")

        # The sender tries again: another record of the same send, together with the old one.
        sends = [read(fence, refused, 1), read(fence, refused, 2)]
        assert [send.judged for send in sends] == [True, False]
        outcomes = (await store.store(sends, {0: 2})).outcomes
        assert [o.stored and o.stored.seq for o in outcomes] == [2, 2]
        assert [m["body"] for m in await ann.history(group)] == ["hello", "let me in"]


async def test_in_a_log_that_began_anew_nothing_is_judged(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        ann = await server.user()
        group = await ann.group()
        fence, store = await successor(server.app[PARTS], fresh=True)
        await store.store([read(fence, record(group, ann, "one"), 7)], {0: 7})
        fence, store = await successor(server.app[PARTS], fresh=True)
        outcomes = (await store.store([read(fence, record(group, ann, "two"), 3)], {0: 3})).outcomes
        assert [o.stored and o.stored.seq for o in outcomes] == [2]


@pytest.mark.parametrize("lost", [[0], [1], [0, 1]])
async def test_who_lost_a_partition_stores_nothing_more(dsn: str, redis_url: str, lost: list[int]) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        ann = await server.user()
        group = await ann.group()
        parts = server.app[PARTS]
        fence, store = await successor(parts, fresh=True, partitions=(0, 1))
        await store.store([read(fence, record(group, ann, "mine"), 0)], {0: 0, 1: 0})

        # Others have them now, and nobody told it.
        await successor(parts, fresh=False, partitions=lost)
        with pytest.raises(StaleOwner):
            await store.store([read(fence, record(group, ann, "late"), 1)], {0: 1, 1: 1})
        assert [m["body"] for m in await ann.history(group)] == ["mine"]
        fence, _ = await successor(parts, fresh=False, partitions=(0, 1))
        assert [fence.judged(partition, offset) for partition in (0, 1) for offset in (0, 1)] == [True, False] * 2
