"""Searches leave room: for each other, for chatting, and on the event loop."""

import asyncio

import pytest

from app.errors import Busy, RateLimited
from app.modules.search.turns import Breaths, Turns


class Visit:
    """Somebody who searches until told to end."""

    def __init__(self, turns: Turns, user_id: int) -> None:
        self.inside = asyncio.Event()
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._search(turns, user_id))

    async def _search(self, turns: Turns, user_id: int) -> None:
        async with turns.of(user_id):
            self.inside.set()
            await self.end.wait()


async def settled() -> None:
    """Everything that can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_search_of_a_user_at_a_time_and_few_of_all() -> None:
    turns = Turns(at_once=2, waiting_max=10, waiting_per_user=2)
    visits = [Visit(turns, user_id) for user_id in (1, 1, 1, 2, 3)]
    inside = []
    for ending in (None, 3, 0, 1, 2, 4):
        if ending is not None:
            visits[ending].end.set()
        await settled()
        inside.append(
            [number for number, visit in enumerate(visits) if visit.inside.is_set() and not visit.task.done()]
        )
    # Whoever floods waits for their own; the others take the rest.
    assert inside == [[0, 3], [0, 4], [1, 4], [2, 4], [4], []]


async def test_too_many_are_told_to_come_again() -> None:
    turns = Turns(at_once=1, waiting_max=1, waiting_per_user=1)
    first, second = Visit(turns, 1), Visit(turns, 2)
    await settled()
    with pytest.raises(Busy) as refused:
        async with turns.of(3):
            pass
    assert refused.value.retry_after_ms
    second.task.cancel()
    first.end.set()
    await settled()
    async with turns.of(3):
        pass


async def test_nobody_takes_the_places_of_all() -> None:
    turns = Turns(at_once=1, waiting_max=10, waiting_per_user=2)
    visits = [Visit(turns, user_id) for user_id in (1, 1, 1)]
    await settled()
    with pytest.raises(RateLimited) as refused:
        async with turns.of(1):
            pass
    assert refused.value.retry_after_ms
    other = Visit(turns, 2)
    visits[1].task.cancel()
    await settled()
    visits.append(Visit(turns, 1))
    for visit in (*visits, other):
        visit.end.set()
    await settled()
    assert [visit.inside.is_set() for visit in (*visits, other)] == [True, False, True, True, True]


async def test_long_work_lets_others_go_on() -> None:
    breaths, steps = Breaths(every_s=0), []

    async def other() -> None:
        steps.append("other")

    task = asyncio.create_task(other())
    for _ in range(2):
        steps.append("piece")
        await breaths.take()
    await task
    assert steps == ["piece", "other", "piece"]
