"""`delivery.group = routed`: messages go only to gateways that have the group, and nobody misses one."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from app.delivery.base import Channel
from app.delivery.interest import KEY, Interest, group_key
from app.lifecycle import Supervisor
from app.protocol import frames
from app.protocol.magpie_pb2 import Event
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.redis import Redis, connect
from tests.contract.routing import Gateway, Person, Place, placed, until

A, B, BOTH = 10, 11, 12
TRIES, AT_ONCE = 1000, 50


@pytest.fixture
async def place(redis_url: str, supervisor: Supervisor) -> AsyncIterator[Place]:
    async with placed(redis_url, supervisor) as place:
        yield place


async def two(place: Place) -> tuple[Gateway, Gateway]:
    """Gateways that publishers know, user 1 in group A and user 2 in B, both in BOTH."""
    place.store.members.update({A: {1}, B: {2}, BOTH: {1, 2}})
    g1, g2 = await place.gateway("g1"), await place.gateway("g2")
    await place.until_routed()
    return g1, g2


async def test_messages_go_only_to_gateways_that_have_the_group(place: Place) -> None:
    g1, g2 = await two(place)
    g3 = await place.gateway("g3")
    await place.until_routed()
    ann, bob = await g1.join(1), await g2.join(2)
    for _ in range(20):
        await place.commit(A, BOTH)
        await place.commit(B)
    await until(lambda: ann.have == {A: 20, BOTH: 20} and bob.have == {B: 20, BOTH: 20})
    assert (ann.missed, bob.missed) == ([], [])
    assert g1.hub.seqs.keys() == {A, BOTH} and g2.hub.seqs.keys() == {B, BOTH} and not g3.hub.seqs
    # A blob for each batch that concerns a gateway: one of them for two groups.
    assert g1.hub.channels == {Channel.NODE: 20}
    assert g2.hub.channels == {Channel.NODE: 40}
    assert g3.metrics.delivery_bytes.labels("node")._value.get() == 0


async def test_what_everybody_has_is_published_once(place: Place) -> None:
    g1, g2 = await two(place)
    ann, bob = await g1.join(1), await g2.join(2)
    before = place.metrics.blobs_published.labels("group")._value.get()
    await place.commit(BOTH, A)
    await until(lambda: ann.have == {A: 1, BOTH: 1} and bob.have == {B: 0, BOTH: 1})
    assert g1.hub.channels == {Channel.NODE: 1, Channel.GROUP: 1}
    assert g2.hub.channels == {Channel.GROUP: 1}
    assert place.metrics.blobs_published.labels("group")._value.get() == before + 1


async def test_small_talk_is_routed_and_what_changes_access_goes_to_all(place: Place) -> None:
    g1, g2 = await two(place)
    ann, bob = await g1.join(1), await g2.join(2)
    typing = Event(group_id=A, frame=frames.event("typing", {"group_id": str(A)}), droppable=True)
    for _ in range(5):
        await place.publisher.events([typing])
    await until(lambda: len(ann.events) == 5)
    assert not g2.hub.channels
    # Bob is new to the group: his gateway has never heard of it.
    place.store.members[A].add(2)
    place.store.version += 1
    joined = Event(
        group_id=A, access_version=place.store.version, user_ids=[2], frame=frames.event("group.joined", {"group": {}})
    )
    await place.publisher.events([joined])
    await until(lambda: len(bob.events) == 1)
    await until(lambda: g2.hub.is_local(A) and not g2.hub.work.is_set())
    await place.commit(A)
    await until(lambda: ann.have[A] == 1 == bob.have.get(A))


async def test_who_connects_while_messages_flow_misses_none(place: Place) -> None:
    # However busy the machine is: nobody may fall out of the book meanwhile.
    g1, g2 = await place.gateway("g1", marker_lease_s=60), await place.gateway("g2", marker_lease_s=60)
    await place.until_routed()
    for wave in range(TRIES // AT_ONCE):
        groups = range(100 + wave * AT_ONCE, 100 + (wave + 1) * AT_ONCE)
        place.store.members.update({group_id: {group_id} for group_id in groups})
        connecting = [asyncio.create_task(_join_sometime(g2 if group_id % 2 else g1, group_id)) for group_id in groups]
        while not all(task.done() for task in connecting):
            await place.commit(*groups)
        people = [await task for task in connecting]
        await place.commit(*groups)
        heads = {group_id: place.store.heads[group_id] for group_id in groups}
        await until(lambda p=people, h=heads: all(one.have[each] == h[each] for one in p for each in one.have))  # type: ignore[misc]  # bound now
        assert [one.missed for one in people if one.missed] == []
        for one in people:
            for group_id, snapshot in one.snapshot.items():
                # Everything that was committed after the read came here, the first of it before the connection was there.
                came = (g2 if group_id % 2 else g1).hub.seqs[group_id]
                assert came[-1] == heads[group_id]
                assert came == list(range(came[0], came[-1] + 1))
                assert came[0] <= snapshot + 1
    assert place.routed("all_untold") == 0


async def _join_sometime(gateway: Gateway, user_id: int) -> Person:
    await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311 - not a secret
    return await gateway.join(user_id)


async def test_an_emptied_redis_loses_nothing_and_is_told_again(place: Place, redis: Redis) -> None:
    g1, g2 = await two(place)
    ann, bob = await g1.join(1), await g2.join(2)
    for number in range(60):
        if number % 20 == 10:
            await redis.flushall()
        await place.commit(A, B, BOTH)
    assert place.routed("all_new") + place.routed("all_untold") >= 4
    await until(lambda: ann.have == {A: 60, BOTH: 60} and bob.have == {B: 60, BOTH: 60})
    assert (ann.missed, bob.missed) == ([], [])
    await place.until_routed()
    before = g2.hub.seqs[A][:]
    await place.commit(A)
    await place.commit(B)
    await until(lambda: ann.have[A] == 61 == bob.have[B])
    assert g2.hub.seqs[A] == before


async def test_the_marker_is_not_set_in_another_redis_than_the_groups(place: Place, redis: Redis) -> None:
    class Emptied(Interest):
        async def _settle(self) -> None:
            """Redis loses what has just been written."""
            await super()._settle()
            if left:
                left.pop()
                await redis.flushall()

    left = [1]
    g1 = await place.gateway("g1", tells=False)
    g1.hub.mark_stale([A])
    interest = Emptied(redis, "g1", g1.hub, beat_s=1, marker_lease_s=60, linger_s=60)
    await interest.hold([A])
    await interest.step()
    assert not left
    assert await redis.hget(KEY, "g1") is None
    await interest.step()
    assert await redis.hget(KEY, "g1") is not None
    assert await redis.zrange(group_key(A), 0, -1) == [b"g1"]


async def test_a_replica_that_took_over_without_the_last_writes_is_told_everything_again(
    place: Place, redis: Redis, breakable_valkey: ValkeyProcess
) -> None:
    g1, g2 = await place.gateway("g1", tells=False), await place.gateway("g2", tells=False)
    interests = [Interest(redis, g.name, g.hub, beat_s=1, marker_lease_s=60, linger_s=60) for g in (g1, g2)]
    for interest in interests:
        await interest.step()
        await interest.hold([A])
    replica = connect(breakable_valkey.url, pool_max=1, connect_timeout_s=5, command_timeout_s=5)
    # It has the marker, not the entries.
    await replica.restore(KEY, 0, await redis.dump(KEY) or b"")
    for interest in interests:
        interest._redis = replica
    await interests[0].step()
    assert await replica.zrange(group_key(A), 0, -1) == [b"g1"]
    # Who has not yet told it everything is not in the marker any more.
    assert set(await replica.hkeys(KEY)) == {b"/incarnation", b"g1"}
    await interests[1].step()
    assert await replica.zrange(group_key(A), 0, -1) == [b"g1", b"g2"]
    assert set(await replica.hkeys(KEY)) == {b"/incarnation", b"g1", b"g2"}
    await replica.aclose()


async def test_who_was_away_for_long_tells_everything_again_before_it_counts(place: Place, redis: Redis) -> None:
    now = 1000.0
    g1 = await place.gateway("g1", tells=False)
    interest = Interest(redis, "g1", g1.hub, beat_s=1, marker_lease_s=5, linger_s=60, clock=lambda: now)
    await interest.step()
    g1.hub.mark_stale([A])
    assert await interest.hold([A])
    assert not await interest.hold([A])
    await redis.delete(group_key(A))
    now += 5
    await interest.step()
    assert await redis.zrange(group_key(A), 0, -1) == []
    now += 5.1
    await interest.step()
    assert await redis.zrange(group_key(A), 0, -1) == [b"g1"]


async def test_a_group_to_which_people_come_all_the_time_is_renewed(place: Place, redis: Redis) -> None:
    now = 1000.0
    g1 = await place.gateway("g1", tells=False)
    interest = Interest(redis, "g1", g1.hub, beat_s=1, marker_lease_s=60, linger_s=30, lease_s=600, clock=lambda: now)
    await interest.step()
    await interest.hold([A])
    first = await redis.zscore(group_key(A), "g1") or 0
    for _ in range(11):
        now += 20
        assert not await interest.hold([A])
        await interest.step()
    assert (await redis.zscore(group_key(A), "g1") or 0) > first > 0


async def test_a_killed_gateway_is_sent_nothing_once_its_entries_expire(place: Place, redis: Redis) -> None:
    g1, g2 = await two(place)
    ann, _ = await g1.join(1), await g2.join(2)
    await g2.kill()
    for _ in range(5):
        await place.commit(A, BOTH)
    await until(lambda: ann.have == {A: 5, BOTH: 5})
    assert ann.missed == []
    await place.until_routed()
    pushed = place.metrics.blobs_published.labels("node")._value.get()
    await place.commit(B)
    assert place.metrics.blobs_published.labels("node")._value.get() == pushed
    async with asyncio.timeout(15):
        while set(await redis.hkeys(KEY)) != {b"/incarnation", b"g1"}:
            await asyncio.sleep(0.01)


async def test_entries_end_by_themselves(place: Place, redis: Redis) -> None:
    g1 = await place.gateway("g1", lease_s=0.3)
    place.store.members[A] = {1}
    await place.until_routed()
    await g1.join(1)
    for _ in range(10):
        # Renewed.
        assert await redis.zcount(group_key(A), 0, "+inf") == 1
        await asyncio.sleep(0.05)
    await g1.kill()
    async with asyncio.timeout(15):
        while await redis.exists(group_key(A)):
            await asyncio.sleep(0.01)


async def test_who_leaves_and_comes_back_misses_nothing(place: Place, redis: Redis) -> None:
    g1, g2 = await two(place)
    await g2.join(2)
    for _ in range(3):
        ann = await g1.join(1)
        seen = ann.have[A]
        await place.commit(A)
        await until(lambda p=ann, n=seen: p.have[A] == n + 1)  # type: ignore[misc]  # bound now
        g1.leave(ann)
        async with asyncio.timeout(15):
            while await redis.exists(group_key(A)):
                await asyncio.sleep(0.01)
        before = len(g1.hub.seqs[A])
        await place.commit(A)
        await place.until_routed()
        assert len(g1.hub.seqs[A]) == before


async def test_a_removal_that_comes_late_does_not_undo_a_new_entry(place: Place, redis: Redis) -> None:
    now = 0.0
    g1 = await place.gateway("g1", tells=False)
    interest = Interest(redis, "g1", g1.hub, beat_s=1, marker_lease_s=60, linger_s=10, clock=lambda: now)
    await interest.step()
    await interest.hold([A])
    now += 11
    await interest.step()
    now += 11
    came_back: list[bool] = []

    class Slow(Redis):
        """The group is held again before its removal is carried out."""

        async def run(self, commands, *, errors=False):  # type: ignore[no-untyped-def]
            if not came_back and commands[0][0] == "EVALSHA" and commands[0][3] == group_key(A):
                came_back.append(await interest.hold([A]))
            return await super().run(commands, errors=errors)

    interest._redis.__class__ = Slow
    try:
        await interest.step()
    finally:
        interest._redis.__class__ = Redis
    assert came_back == [True]
    assert await redis.zrange(group_key(A), 0, -1) == [b"g1"]


async def test_when_the_clock_of_redis_was_set_everything_is_told_again(place: Place, redis: Redis) -> None:
    g1 = Gateway(place, "g1")
    interest = g1.interest
    await interest.step()
    # Redis was an hour behind when the group was written.
    interest._time.heard(interest._time.now_ms() - 3_600_000)
    await interest.hold([A])
    seconds, _ = await redis.time()
    assert await redis.zcount(group_key(A), seconds * 1000, "+inf") == 0
    await interest.step()
    assert await redis.zcount(group_key(A), seconds * 1000, "+inf") == 1
    assert await redis.hexists(KEY, "g1")


async def test_while_a_gateway_does_not_tell_everything_goes_to_all(place: Place) -> None:
    g1, _ = await two(place)
    place.store.members[A] |= {3}
    other = await place.gateway("other", tells=False)
    await place.until_met()
    ann, cid = await g1.join(1), await other.join(3)
    for _ in range(10):
        await place.commit(A)
    await until(lambda: ann.have[A] == 10 == cid.have[A])
    assert (ann.missed, cid.missed) == ([], [])
    assert place.routed("all_untold") >= 10
    await other.kill()
    await place.until_routed()


async def test_a_lost_entry_is_made_good_by_heads(place: Place, redis: Redis, supervisor: Supervisor) -> None:
    g1, _ = await two(place)
    ann = await g1.join(1)
    await redis.delete(group_key(A))
    await place.commit(A)
    assert ann.have[A] == 0
    supervisor.spawn(place.publisher.run(), "publisher")
    await until(lambda: ann.missed == [(A, 1)])


async def test_while_redis_is_away_people_connect_and_their_groups_are_compared_later(
    place: Place, redis: Redis
) -> None:
    g1 = Gateway(place, "g1", tells=False)
    away = connect("redis://127.0.0.1:1", pool_max=1, connect_timeout_s=1, command_timeout_s=1)
    interest = Interest(away, "g1", g1.hub, beat_s=1, marker_lease_s=60, linger_s=10)
    await interest.step()
    # What was read may be old, but there is nothing to wait for.
    assert not await interest.hold([A, B])
    place.store.members[A] = {1}
    await g1.join(1)
    interest._redis = redis
    await interest.step()
    # Whoever is to have B is still connecting.
    assert g1.hub.stale == {A: True, B: True}
    assert await redis.zrange(group_key(A), 0, -1) == [b"g1"]
    place.supervisor.spawn(g1.repairer.run(), "repairer")
    await until(lambda: not g1.hub.is_local(B))
    assert g1.hub.is_local(A)
    await away.aclose()


async def test_while_redis_hangs_people_do_not_wait_one_after_the_other(place: Place, redis: Redis) -> None:
    hangs = asyncio.Event()
    tries: list[int] = []

    class Hanging(Redis):
        async def run(self, commands, *, errors=False):  # type: ignore[no-untyped-def]
            tries.append(len(commands))
            await hangs.wait()
            raise TimeoutError

    g1 = Gateway(place, "g1", tells=False)
    interest = Interest(redis, "g1", g1.hub, beat_s=1, marker_lease_s=60, linger_s=10)
    await interest.step()
    redis.__class__ = Hanging
    try:
        holding = [asyncio.create_task(interest.hold([group_id])) for group_id in (A, B, BOTH)]
        await until(lambda: bool(tries))
        hangs.set()
        assert await asyncio.gather(*holding) == [False] * 3
        assert len(tries) == 1
    finally:
        redis.__class__ = Redis
    await interest.step()
    assert g1.hub.stale.keys() == {A, B, BOTH}
