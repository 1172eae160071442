"""People connect, and groups change, while the gateway reads members again: nobody is dropped, nobody stays by mistake."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

import pytest
from aiohttp import web

from app.delivery.base import Channel
from app.delivery.interest import hold_nothing
from app.errors import Busy
from app.metrics import Metrics
from app.modules.groups.models import Membership, MembersNow
from app.protocol.endpoint import Principal
from app.protocol.magpie_pb2 import Blob, Event, GroupMessages
from app.web.answers import AnswerDesk
from app.web.gateway.connection import Connection
from app.web.gateway.hub import FanOut, Hub
from app.web.gateway.repair import Repairer

GROUP = 7
SMALL_TALK = Event(group_id=GROUP, frame=b"small talk", droppable=True)


class Wire:
    """What a transport would send."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


class Store:
    """Members as the store has them; a read takes its snapshot, then waits for the gate."""

    def __init__(self) -> None:
        self.now: MembersNow | None = MembersNow({1, 2}, last_seq=5, access_version=3, size=2)
        self.gate = asyncio.Event()
        self.pool = asyncio.Event()
        """Unset: a read waits for a connection before it takes its snapshot."""
        self.pool.set()
        self.compared = 0
        self.reading = asyncio.Event()
        self.reads = 0

    async def members_among(self, group_ids: Sequence[int], user_ids: Sequence[int]) -> Mapping[int, MembersNow]:
        self.reads += 1
        asked = set(user_ids)
        self.reading.set()
        await self.pool.wait()
        found = self.now
        await self.gate.wait()
        if found is None:
            return {}
        seen = MembersNow(found.user_ids & asked, found.last_seq, found.access_version, found.size)
        return dict.fromkeys(group_ids, seen)

    async def group_ids_of(self, user_ids: Sequence[int]) -> set[int]:
        self.compared += 1
        return {GROUP}

    async def valid(self, sids: Sequence[UUID]) -> set[UUID]:
        return set(sids)


class Place:
    """A hub with its repairer on a `Store`."""

    def __init__(self) -> None:
        self.store = Store()
        self.metrics = Metrics()
        fan_out = FanOut(window_s=0, window_max_s=0, window_max_items=100, pull_within_ms=0, large_group_members=1000)
        self.hub = Hub(AnswerDesk("boot", lambda _: None, lambda: None), lambda *_: None, self.metrics, fan_out)
        self.repairer = Repairer(self.hub, self.store, self.store, hold_nothing, self.metrics, cut_compare_s=0.01)

    def connect(self, user_id: int, access_version: int) -> tuple[Connection, Wire]:
        """A connection whose membership was read at `access_version`."""
        connection, wire = self.register(user_id)
        self.hub.join(connection, [Membership(GROUP, last_seq=5, access_version=access_version)])
        return connection, wire

    def register(self, user_id: int) -> tuple[Connection, Wire]:
        """A connection whose session and memberships are still being read."""
        wire = Wire()
        connection = Connection(
            user_id,
            cast(web.WebSocketResponse, None),
            cast(asyncio.Transport, wire),
            Principal(user_id, uuid.uuid4(), 1 << 40),
            self.hub.outlet,
            self.metrics,
            buffer_bytes=1 << 20,
            held_max=10,
            frames_per_second=20,
        )
        self.hub.register(connection)
        return connection, wire

    async def a_read_is_under_way(self) -> None:
        self.hub.mark_stale([GROUP])
        await self.store.reading.wait()
        self.store.reading.clear()

    async def until_repaired(self) -> None:
        self.store.gate.set()
        async with asyncio.timeout(5):
            while self.hub.work.is_set():
                await asyncio.sleep(0)

    async def typing(self, access_version: int = 0) -> None:
        """Small talk comes down, which need not reach everybody, and everything is written."""
        event = Event(group_id=GROUP, access_version=access_version, frame=b"small talk", droppable=True)
        self.hub.on_blob(Channel.GROUP, Blob(publisher="p", number=1, events=[event]))
        self.hub.repair_cause = None
        await self.until_repaired()
        await asyncio.sleep(0.01)

    def change(self, access_version: int) -> None:
        """A change of the members comes down."""
        event = Event(group_id=GROUP, access_version=access_version, frame=b"joined", droppable=True)
        self.hub.on_blob(Channel.GROUP, Blob(publisher="p", number=1, events=[event]))
        self.hub.repair_cause = None

    def told_of_joining(self, user_id: int, access_version: int) -> None:
        """Somebody joined the group: the event for who joined, and the one for all members."""
        joined = Event(group_id=GROUP, access_version=access_version, user_ids=[user_id], frame=b"group.joined")
        member = Event(group_id=GROUP, access_version=access_version, frame=b"joined", droppable=True)
        self.hub.on_blob(Channel.GROUP, Blob(publisher="p", number=1, events=[joined, member]))
        self.hub.repair_cause = None

    def come(self, seq: int, access_version: int) -> None:
        """A message comes down."""
        messages = GroupMessages(group_id=GROUP, access_version=access_version, first_seq=seq, items=[b"{}"])
        self.hub.on_blob(Channel.GROUP, Blob(publisher="p", number=1, messages=[messages]))
        self.hub.repair_cause = None

    async def message(self, seq: int, access_version: int) -> None:
        """A message comes down and everything is written."""
        self.come(seq, access_version)
        await asyncio.sleep(0.01)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    repairing = asyncio.create_task(place.repairer.run())
    yield place
    repairing.cancel()


def has_message(wire: Wire) -> bool:
    return any(b'"messages"' in data for data in wire.sent)


async def test_who_connects_during_a_read_gets_what_follows(place: Place) -> None:
    _, at_ann = place.connect(1, 3)
    await place.a_read_is_under_way()
    _, at_bob = place.connect(2, 3)
    await place.until_repaired()
    await place.message(6, 3)
    assert has_message(at_ann)
    assert has_message(at_bob)
    assert place.store.reads == 1


async def test_who_connects_during_a_read_and_was_kicked_before_it_gets_nothing(place: Place) -> None:
    place.connect(1, 3)
    place.store.now = MembersNow({1}, last_seq=5, access_version=4, size=1)
    await place.a_read_is_under_way()
    bob, at_bob = place.connect(2, 3)
    await place.until_repaired()
    await place.message(6, 4)
    assert not has_message(at_bob)
    assert bob.groups == set()
    assert place.store.reads == 2


async def test_a_change_during_a_read_is_read_again(place: Place) -> None:
    _, at_ann = place.connect(1, 3)
    _, at_bob = place.connect(2, 3)
    await place.a_read_is_under_way()
    place.store.now = MembersNow({1}, last_seq=5, access_version=4, size=1)
    await place.message(6, 4)
    await place.until_repaired()
    await place.message(7, 4)
    assert has_message(at_ann)
    assert not has_message(at_bob)
    assert place.store.reads == 2


async def test_a_group_that_is_gone_is_forgotten(place: Place) -> None:
    place.connect(1, 3)
    place.store.now = None
    await place.a_read_is_under_way()
    bob, _ = place.connect(2, 3)
    await place.until_repaired()
    assert place.hub.local_groups() == []
    assert bob.groups == set()


async def test_a_store_that_fails_is_asked_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    _, at_ann = place.connect(1, 3)
    read: Any = place.store.members_among
    failures = [Busy("away", retry_after_ms=1)]

    async def fails_once(group_ids: Sequence[int], user_ids: Sequence[int]) -> Mapping[int, MembersNow]:
        if failures:
            raise failures.pop()
        found: Mapping[int, MembersNow] = await read(group_ids, user_ids)
        return found

    monkeypatch.setattr(place.store, "members_among", fails_once)
    place.hub.mark_stale([GROUP])
    await place.until_repaired()
    await place.message(6, 3)
    assert has_message(at_ann)
    assert not failures


def has_small_talk(wire: Wire) -> bool:
    return any(b"small talk" in data for data in wire.sent)


@pytest.mark.parametrize("access_version", [0, 4])
@pytest.mark.parametrize(("size", "without_focus"), [(1000, True), (1001, False)])
async def test_small_talk_of_a_large_group_goes_to_who_looks_at_it(
    place: Place, size: int, without_focus: bool, access_version: int
) -> None:
    ann, at_ann = place.connect(1, 3)
    _, at_bob = place.connect(2, 3)
    ann.focus = GROUP
    # Nothing was read yet: the size is not known before the small talk asks for it.
    place.store.now = MembersNow({1, 2}, last_seq=5, access_version=max(3, access_version), size=size)
    await place.typing(access_version)
    assert has_small_talk(at_ann)
    assert has_small_talk(at_bob) is without_focus
    assert place.store.reads == 1
    await place.typing()
    assert place.store.reads == 1


async def test_who_joined_a_group_before_its_first_read_hears_of_messages_stored_meanwhile(place: Place) -> None:
    place.hub.mark_stale([GROUP])
    _, at_ann = place.connect(1, 3)
    place.come(6, 3)
    place.store.now = MembersNow({1, 2}, last_seq=6, access_version=3, size=2)
    await place.until_repaired()
    await asyncio.sleep(0.01)
    assert any(b'"gap"' in data and b'"from_seq":6' in data for data in at_ann.sent)


async def test_changes_that_never_stop_do_not_hold_messages_back(place: Place) -> None:
    _, at_ann = place.connect(1, 3)
    for version in range(4, 10):
        # While the members are read as of one version, there is another already.
        place.store.now = MembersNow({1}, last_seq=5, access_version=version, size=9000)
        place.come(version + 2, version)
        await place.store.reading.wait()
        place.store.reading.clear()
        place.change(version + 1)
        at_ann.sent.clear()
        place.store.gate.set()
        async with asyncio.timeout(5):
            while not has_message(at_ann):
                await asyncio.sleep(0)
        place.store.gate.clear()


async def test_a_change_that_the_read_shows_already_is_not_read_again(place: Place) -> None:
    place.connect(1, 3)
    place.store.now = MembersNow({1, 2}, last_seq=5, access_version=5, size=2)
    place.change(4)
    await place.store.reading.wait()
    place.change(5)
    await place.until_repaired()
    assert place.store.reads == 1


async def test_who_connects_and_joins_while_a_read_waits_for_its_turn_is_not_forgotten(place: Place) -> None:
    place.connect(1, 3)
    place.store.pool.clear()
    place.change(4)
    await place.store.reading.wait()
    bob, at_bob = place.register(2)
    place.hub.join(bob, [])
    place.store.now = MembersNow({1, 2}, last_seq=5, access_version=5, size=2)
    place.told_of_joining(2, 5)
    place.store.pool.set()
    await place.until_repaired()
    await place.message(6, 5)
    assert has_message(at_bob)


async def test_nothing_is_pushed_before_the_session_was_read(place: Place) -> None:
    place.connect(1, 3)
    bob, at_bob = place.register(2)
    place.store.now = MembersNow({1, 2}, last_seq=5, access_version=4, size=2)
    place.told_of_joining(2, 4)
    await place.until_repaired()
    await place.message(6, 4)
    assert at_bob.sent == []
    # Its memberships were read before it was in the group.
    place.hub.join(bob, [])
    await place.until_repaired()
    await place.message(7, 4)
    assert has_message(at_bob)
    # The head that a newcomer is told is that of the messages it was not pushed.
    assert any(b'"gap"' in data and b'"to_seq":6' in data for data in at_bob.sent)


async def test_who_was_found_by_a_read_before_it_joined_costs_no_further_reads(place: Place) -> None:
    place.connect(1, 3)
    bob, _ = place.register(2)
    place.store.now = MembersNow({1, 2}, last_seq=5, access_version=4, size=2)
    place.change(4)
    await place.until_repaired()
    place.hub.join(bob, [Membership(GROUP, last_seq=5, access_version=3)])
    await place.until_repaired()
    reads = place.store.reads
    place.store.reading.clear()
    place.store.gate.clear()
    place.store.now = MembersNow({1, 2}, last_seq=5, access_version=6, size=2)
    place.change(5)
    await place.store.reading.wait()
    place.change(6)
    await place.until_repaired()
    assert place.store.reads == reads + 1


async def test_changes_that_never_stop_do_not_hold_a_comparison_up(place: Place) -> None:
    place.connect(1, 3)
    await place.a_read_is_under_way()
    place.hub.on_reconnected()
    place.store.gate.set()
    async with asyncio.timeout(5):
        while not place.store.compared:
            # In every round there is something to read.
            place.hub.mark_stale([GROUP])
            await asyncio.sleep(0)


async def test_a_role_is_not_lost_behind_small_talk(place: Place) -> None:
    _, at_ann = place.connect(1, 3)
    place.store.now = MembersNow({1}, last_seq=5, access_version=4, size=1)
    place.change(4)
    for _ in range(200):
        place.hub.on_blob(Channel.GROUP, Blob(publisher="p", number=1, events=[SMALL_TALK]))
    role = Event(group_id=GROUP, access_version=4, frame=b"a new role")
    place.hub.on_blob(Channel.GROUP, Blob(publisher="p", number=1, events=[role]))
    place.hub.repair_cause = None
    await place.until_repaired()
    await asyncio.sleep(0.01)
    assert any(b"a new role" in data for data in at_ann.sent)


async def test_while_nothing_arrives_everything_is_compared_again_and_again(place: Place) -> None:
    _, at_ann = place.connect(1, 3)
    place.hub.on_cut()
    await place.until_repaired()
    assert place.store.compared == 1
    place.store.now = MembersNow({1, 2}, last_seq=6, access_version=3, size=2)
    async with asyncio.timeout(5):
        while not any(b'"gap"' in data for data in at_ann.sent):
            await asyncio.sleep(0.001)
    place.hub.on_reconnected()
    await place.until_repaired()
    assert not place.hub.cut
