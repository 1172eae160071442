"""Background tasks that end although nobody asked them to."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app.lifecycle import Supervisor


async def forever() -> None:
    await asyncio.Event().wait()


async def returns() -> None:
    pass


async def raises() -> None:
    raise OSError


async def is_cancelled() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize("task", [returns, raises, is_cancelled])
async def test_a_task_that_ends_by_itself_is_a_death(task: Callable[[], Coroutine[Any, Any, None]]) -> None:
    deaths: list[str] = []
    supervisor = Supervisor(deaths.append)
    running = supervisor.spawn(task(), "one")
    await asyncio.wait({running})
    await asyncio.sleep(0)
    assert deaths == ["one"]
    await supervisor.stop(1)


async def test_a_task_that_is_told_to_end_is_none() -> None:
    deaths: list[str] = []
    supervisor = Supervisor(deaths.append)
    one, two = supervisor.spawn(forever(), "one"), supervisor.spawn(forever(), "two")
    await supervisor.end(one, 1)
    await supervisor.stop(1)
    assert one.cancelled()
    assert two.cancelled()
    assert deaths == []
