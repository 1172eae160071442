"""Who hears of somebody coming and going: nobody before the members are known, each once, those who look at the group first."""

import asyncio
import uuid
from itertools import pairwise
from typing import cast

import pytest
from aiohttp import web

from app.metrics import Metrics
from app.protocol.endpoint import Principal
from app.protocol.magpie_pb2 import Blob, Presence
from app.web.gateway import presence as fan_out
from app.web.gateway.connection import Connection, Outlet
from app.web.gateway.group import LocalGroup
from app.web.gateway.presence import PresenceFanOut

BEN = 99


class Place:
    """Groups of a gateway, their members known as of version 1."""

    def __init__(self, *, frames_per_second: int = 1000) -> None:
        self.metrics = Metrics()
        self.groups: dict[int, LocalGroup] = {}
        self.fan_out = PresenceFanOut(self, self.metrics, frames_per_second=frames_per_second)
        self.heard: list[int] = []
        self.looked = 0

    def local_groups(self) -> list[int]:
        return list(self.groups)

    def group(self, group_id: int) -> LocalGroup | None:
        self.looked += 1
        return self.groups.get(group_id)

    def add(self, group_id: int, *user_ids: int) -> LocalGroup:
        group = LocalGroup(group_id, 0, 1, self.metrics, max_items=10, pull_within_ms=0, large_members=10)
        for user_id in user_ids:
            group.connections[self.connection(user_id)] = 1
        self.groups[group_id] = group
        return group

    def connection(self, user_id: int) -> Connection:
        place = self

        class Hearing(Connection):
            __slots__ = ()

            def push_event(self, frame: bytes, *, droppable: bool) -> bool:
                assert droppable
                assert b'"user_id":"99"' in frame
                place.heard.append(user_id)
                return True

        return Hearing(
            user_id,
            cast(web.WebSocketResponse, None),
            cast(asyncio.Transport, None),
            Principal(user_id, uuid.uuid4(), 1 << 40),
            Outlet(),
            self.metrics,
            buffer_bytes=1 << 20,
            held_max=10,
            frames_per_second=20,
        )

    async def came(self, *group_ids: int) -> None:
        """Ben came, and those were told who can be by now."""
        self.fan_out.on_control(Blob(presence=[Presence(user_id=BEN, online=True, ts=1, group_ids=group_ids)]))
        await self.fan_out.step()


async def test_once_per_connection_and_never_to_oneself() -> None:
    place = Place()
    first = place.add(7, 1, 2, BEN)
    second = place.add(8, 3)
    for connection in first.connections:
        second.connections[connection] = 1
    await place.came(7, 8, 9)
    assert sorted(place.heard) == [1, 2, 3]


async def test_nobody_is_told_before_the_members_are_known_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "LOOK_S", 0.001)
    place = Place()
    known, changed = place.add(7, 1), place.add(8, 2, 3)
    assert known.group_id == 7
    changed.newest_version = 2
    await place.came(7, 8)
    assert place.heard == [1]
    task = asyncio.ensure_future(place.fan_out.run_held())
    await asyncio.sleep(0.01)
    assert place.heard == [1]
    # User 2 was removed meanwhile.
    del changed.connections[next(iter(changed.connections))]
    changed.access_version = 2
    async with asyncio.timeout(5):
        while len(place.heard) < 2:
            await asyncio.sleep(0.001)
    task.cancel()
    assert place.heard == [1, 3]


async def test_in_a_storm_those_who_look_at_the_group_hear_everything() -> None:
    place = Place(frames_per_second=5)
    group = place.add(7, *range(1, 21))
    looking = list(group.connections)[10:]
    for connection in looking:
        connection.focus = 7
    for _ in range(3):
        await place.came(7)
    heard = {user_id: place.heard.count(user_id) for user_id in range(1, 21)}
    assert all(heard[connection.principal.user_id] == 3 for connection in looking)
    assert 5 <= sum(heard[user_id] for user_id in range(1, 11)) <= 6


async def test_who_looks_at_any_group_that_is_shared_hears_it() -> None:
    place = Place(frames_per_second=1)
    first, second = place.add(7, *range(1, 11)), place.add(8)
    for connection in first.connections:
        second.connections[connection] = 1
        connection.focus = 8
    await place.came(7, 8)
    assert sorted(place.heard) == list(range(1, 11))


async def test_others_get_their_turn_while_people_with_many_groups_come() -> None:
    place = Place()
    place.add(5000, 1)
    place.fan_out.on_control(
        Blob(
            presence=[
                Presence(user_id=BEN, online=True, ts=1, group_ids=range(start, start + 2000))
                for start in range(0, 10_000, 2000)
            ]
        )
    )
    assert place.looked == 0
    telling = asyncio.ensure_future(place.fan_out.step())
    looked = [0]
    while not telling.done():
        await asyncio.sleep(0)
        looked.append(place.looked)
    assert looked[-1] == 10_000
    assert max(after - before for before, after in pairwise(looked)) <= fan_out.STEPS_PER_TURN
    assert place.heard == [1]


def test_what_waits_is_bounded() -> None:
    place = Place()
    for _ in range(30):
        place.fan_out.on_control(Blob(presence=[Presence(user_id=BEN, group_ids=range(10_000))]))
    assert sum(len(each.group_ids) for each in place.fan_out._news) == fan_out.WAITING_MAX
    assert place.metrics.events_shed._value.get() == 20
