"""What consumer and gateway ask about groups in bulk, on a real database."""

import asyncio
import itertools
import time
import uuid
from collections.abc import Mapping, Sequence

import pytest

from app.delivery.memory import MemoryDelivery
from app.delivery.publisher import Publisher
from app.errors import Forbidden, NotFound
from app.metrics import Metrics
from app.modules.groups.feature import GroupsFeature, groups_feature
from app.modules.groups.handlers import CreateGroupBody, JoinBody, UpdateMemberBody
from app.modules.groups.models import MemberProfile, Membership, MembersNow, MyGroup, Profile
from app.protocol.endpoint import Call, Principal
from app.settings import Settings
from app.storage.postgres import Postgres


class Ids:
    def __init__(self) -> None:
        self._next = itertools.count(100)

    def stamp(self, n: int) -> list[int]:
        return list(itertools.islice(self._next, n))


class Accounts:
    async def profiles(self, user_ids: Sequence[int]) -> Mapping[int, Profile]:
        return {user_id: MemberProfile(id=user_id, username=f"u{user_id}", display_name="") for user_id in user_ids}


@pytest.fixture
async def groups(postgres: Postgres, config: Settings) -> GroupsFeature:
    delivery = MemoryDelivery()
    await delivery.start("node", None, ())
    options = config.delivery
    publisher = Publisher(
        delivery,
        "boot",
        Metrics(),
        max_blob_bytes=options.max_blob_bytes,
        heads_interval_s=options.heads_interval_s,
        heads_active_s=options.heads_active_s,
        max_tracked_groups=options.max_tracked_groups,
    )
    return groups_feature(postgres, publisher, Ids(), Accounts(), config.groups)


def by(user_id: int) -> Call:
    return Call("request", "127.0.0.1", "localhost", Principal(user_id, uuid.UUID(int=user_id), 2**40))


async def group_of(groups: GroupsFeature, owner: int, *members: int) -> int:
    group: MyGroup = await groups.handlers.create(by(owner), CreateGroupBody(name="g", visibility="open"))
    for member in members:
        await groups.handlers.join(by(member), group.id, JoinBody())
    return group.id


async def test_only_members_who_are_not_muted_may_post(groups: GroupsFeature, postgres: Postgres) -> None:
    group, gone = await group_of(groups, 1, 2, 3, 4, 5), await group_of(groups, 1)
    until = round(time.time() * 1000) + 60_000
    await groups.handlers.update_member(by(1), group, 2, UpdateMemberBody(muted_until=until))
    await groups.handlers.leave(by(3), group)
    await groups.handlers.ban(by(1), group, 4)
    await groups.handlers.disband(by(1), gone)
    pairs = [(group, 1), (group, 2), (group, 3), (group, 4), (group, 5), (group, 6), (gone, 1), (999, 1)]
    async with postgres.transaction() as connection:
        verdicts = await groups.states.check_senders(connection, pairs)
    assert set(verdicts) == set(pairs)
    assert [pair for pair, error in verdicts.items() if error is None] == [(group, 1), (group, 5)]
    muted = verdicts[group, 2]
    assert isinstance(muted, Forbidden)
    assert all(isinstance(verdicts[pair], NotFound) for pair in pairs[2:4] + pairs[5:])


async def test_a_mute_that_is_over_does_not_hinder(groups: GroupsFeature, postgres: Postgres) -> None:
    group = await group_of(groups, 1, 2)
    await groups.handlers.update_member(
        by(1), group, 2, UpdateMemberBody(muted_until=round(time.time() * 1000) + 60_000)
    )
    await postgres.execute("UPDATE group_members SET muted_until = now() - interval '1 ms' WHERE user_id = 2")
    async with postgres.transaction() as connection:
        assert await groups.states.check_senders(connection, [(group, 2)]) == {(group, 2): None}


async def test_locks_are_held_until_the_end_and_order_a_kick_against_a_batch(
    groups: GroupsFeature, postgres: Postgres
) -> None:
    first, second = await group_of(groups, 1, 2), await group_of(groups, 1)
    async with postgres.transaction() as connection:
        heads = await groups.states.lock_seqs(connection, [second, first, 999])
        assert list(heads.items()) == [(first, (0, 2)), (second, (0, 1))]
        kick = asyncio.ensure_future(groups.handlers.kick(by(1), first, 2))
        await waits_for_lock(postgres)
        assert await groups.states.check_senders(connection, [(first, 2)]) == {(first, 2): None}
        await groups.states.move_seqs(connection, {first: 7})
    await kick
    async with postgres.transaction() as connection:
        assert await groups.states.lock_seqs(connection, [first, second]) == {first: (7, 3), second: (0, 1)}
        assert isinstance((await groups.states.check_senders(connection, [(first, 2)]))[first, 2], NotFound)


async def waits_for_lock(postgres: Postgres) -> None:
    async with asyncio.timeout(10):
        while not await postgres.fetchval(
            "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database OR l.database IS NULL"
            " WHERE NOT granted AND d.datname = current_database()"
        ):
            pass


async def test_memberships_come_with_the_state_of_their_groups(groups: GroupsFeature, postgres: Postgres) -> None:
    first, second = await group_of(groups, 1, 2), await group_of(groups, 2)
    async with postgres.transaction() as connection:
        await groups.states.lock_seqs(connection, [first])
        await groups.states.move_seqs(connection, {first: 3})
    found = await groups.states.memberships([1, 2, 3, 2])
    assert {user: sorted(m, key=lambda m: m.group_id) for user, m in found.items()} == {
        1: [Membership(first, 3, 2)],
        2: [Membership(first, 3, 2), Membership(second, 0, 1)],
        3: [],
    }
    assert await groups.states.group_ids_of([1, 2, 3]) == {first, second}
    assert await groups.states.group_ids_of([3]) == set()


async def test_members_among_says_who_of_the_asked_is_a_member_now(groups: GroupsFeature) -> None:
    first, second, gone = await group_of(groups, 1, 2, 3), await group_of(groups, 2), await group_of(groups, 1)
    await groups.handlers.disband(by(1), gone)
    assert await groups.states.members_among([first, second, gone, 999], [1, 3, 3, 9]) == {
        first: MembersNow({1, 3}, 0, 3, 3),
        second: MembersNow(set(), 0, 1, 1),
    }
    assert (await groups.states.members_among([first], []))[first] == MembersNow(set(), 0, 3, 3)
    assert await groups.states.members_among([], [1]) == {}


async def test_access_is_proven_for_many_groups_at_once(groups: GroupsFeature) -> None:
    first, second = await group_of(groups, 1, 2), await group_of(groups, 2)
    found = await groups.gate.access_groups(1, [first, second, 999])
    assert {group: (access.role, access.last_seq) for group, access in found.items()} == {first: ("owner", 0)}
    assert (await groups.gate.access_group(2, first)).role == "member"
    with pytest.raises(NotFound):
        await groups.gate.access_group(1, second)


async def test_joining_many_groups_at_once_stops_at_the_bound(
    groups: GroupsFeature, postgres: Postgres, config: Settings
) -> None:
    ids = [await group_of(groups, owner) for owner in range(10, 16)]
    await postgres.execute(
        """INSERT INTO group_members (group_id, user_id, role, joined_seq)
           SELECT n, 1, 'member', 0 FROM generate_series($1::bigint, $2) AS n""",
        10_000,
        10_000 + config.groups.max_groups_per_user - 4,
    )
    results = await asyncio.gather(
        *(groups.handlers.join(by(1), group, JoinBody()) for group in ids), return_exceptions=True
    )
    assert sum(isinstance(result, MyGroup) for result in results) == 3
    assert await postgres.fetchval("SELECT count(*) FROM group_members WHERE user_id = 1") == 500
