"""What is told of people when the store fails."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

import pytest
from asyncpg import UndefinedTableError

from app.delivery.publisher import Publisher
from app.errors import Busy
from app.metrics import Metrics
from app.modules.presence import announcer as announcing
from app.modules.presence.announcer import Announcer
from app.modules.presence.models import Members
from app.modules.presence.online import OnlineUsers
from app.modules.presence.repository import LastSeenRepository
from app.modules.presence.routes import UserRoutes
from app.protocol.magpie_pb2 import Blob
from app.storage import retry

PER_TICK = 8


class Stores:
    """Redis, PostgreSQL and delivery in one; a statement for more than `bearable` users takes too long."""

    def __init__(self, bearable: int) -> None:
        self.bearable = bearable
        self.tried: list[int] = []
        self.told: list[int] = []
        self.error: Exception = Busy("too slow")

    async def write(self, here: Sequence[int], _left: Sequence[int]) -> tuple[int, list[int]]:
        return 1, list(here)

    async def small_groups_of(self, user_ids: Sequence[int], _at_most: int) -> Mapping[int, list[int]]:
        self.tried.append(len(user_ids))
        if len(user_ids) > self.bearable:
            raise self.error
        return {user_id: [7] for user_id in user_ids}

    async def move(self, _moments: Mapping[int, int]) -> None:
        """Nothing to keep."""

    async def control(self, blob: Blob) -> bool:
        self.told += [presence.user_id for presence in blob.presence]
        return True


def announcer_on(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Announcer:
    monkeypatch.setattr(announcing, "TICK_S", 0.001)
    monkeypatch.setattr(retry, "WAIT_MIN_S", 0.001)
    return Announcer(
        cast(OnlineUsers, stores),
        cast(UserRoutes, stores),
        cast(Members, stores),
        cast(LastSeenRepository, stores),
        cast(Publisher, stores),
        Metrics(),
        small_group_members=50,
        sweep_s=1,
        per_second=PER_TICK * 1000,
    )


async def until_told(announcer: Announcer, stores: Stores, number: int) -> None:
    task = asyncio.ensure_future(announcer.run())
    async with asyncio.timeout(10):
        while len(stores.told) < number and not task.done():
            await asyncio.sleep(0.001)
    task.cancel()
    assert sorted(stores.told) == list(range(number))


async def test_a_batch_that_is_too_heavy_is_halved_and_grows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = Stores(bearable=2)
    announcer = announcer_on(stores, monkeypatch)
    await announcer.write(range(20), [])
    await until_told(announcer, stores, 20)
    assert stores.tried[:5] == [8, 4, 2, 4, 2]
    stores.bearable, stores.told, stores.tried = PER_TICK, [], []
    await announcer.write(range(40), [])
    await until_told(announcer, stores, 40)
    assert max(stores.tried) == PER_TICK


@pytest.mark.parametrize("error", [Busy("away"), UndefinedTableError("last_seen")])
async def test_a_store_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    stores = Stores(bearable=0)
    stores.error = error
    announcer = announcer_on(stores, monkeypatch)
    await announcer.write([0, 1, 2], [])
    task = asyncio.ensure_future(announcer.run())
    async with asyncio.timeout(10):
        while len(stores.tried) < 4 and not task.done():
            await asyncio.sleep(0.001)
    task.cancel()
    stores.bearable = 1
    await until_told(announcer, stores, 3)
