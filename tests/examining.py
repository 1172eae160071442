"""A small history with everything that the doctor looks at, to be copied and damaged; and the doctor on it."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.brokers.base import Broker
from app.brokers.memory import MemoryBroker
from app.delivery.memory import MemoryDelivery
from app.doctor.examine import Result
from app.doctor.feature import build_doctor
from app.parts import Parts
from app.roles import PARTS
from app.settings import Settings, load
from app.storage.postgres import Postgres
from app.storage.redis import Redis, connect
from tests.running import serving, settings_for

INDEXED_S = 20.0
LIMIT_S = 20.0


@dataclass(frozen=True)
class Sample:
    """Stores that nobody uses; ids of a group with six messages, of its owner and of two members. The last has read four."""

    dsn: str
    keys: dict[bytes, bytes]
    group: int
    other: int
    ann: int
    bob: int
    cid: int


@asynccontextmanager
async def made_sample(dsn: str, redis_url: str) -> AsyncIterator[Sample]:
    """Written by a server of one process that has ended since."""
    settings = settings_for(dsn, redis_url, search={"index_interval_s": 0.05})
    async with serving(settings, MemoryDelivery()) as server:
        ann, bob, cid = await server.users(3)
        group, other = await ann.group(bob, cid), await bob.group(ann)
        for n in range(6):
            assert (await (ann, bob)[n % 2].post(group, f"text {n}"))[0] == 201
        for n in range(3):
            assert (await bob.post(other, f"other {n}"))[0] == 201
        await cid.ok("PUT", f"/groups/{group}/read", {"seq": 4})
        postgres = server.app[PARTS].postgres
        async with asyncio.timeout(INDEXED_S):
            while await postgres.fetchval("SELECT coalesce(sum(indexed_seq), 0) FROM search_progress") < 9:
                await asyncio.sleep(0.02)
    client = connect(redis_url, pool_max=2, connect_timeout_s=5, command_timeout_s=5)
    keys = {key: await client.dump(key) or b"" async for key in client.scan_iter(match="Group:*")}
    await client.aclose()
    yield Sample(dsn, keys, int(group), int(other), int(ann.id), int(bob.id), int(cid.id))


def its_log(parts: Parts) -> Broker:
    """The log of a server as a command beside it has it: an object of its own, whose end the server does not notice."""
    return Parts(parts.settings, lambda _: None).broker


async def examined(
    postgres: Postgres,
    redis: Redis,
    *,
    repair: bool = False,
    only: Collection[str] = (),
    settle_s: float = 0.2,
    broker: Broker | None = None,
    settings: Settings | None = None,
) -> dict[str, Result]:
    """Results by check; all checks could be done."""
    settings = settings or load()
    doctor = build_doctor(
        postgres,
        redis,
        broker or MemoryBroker(settings.broker.partitions, 10),
        settings.messages,
        only=only,
        repair=repair,
        settle_s=settle_s,
        statement_s=LIMIT_S,
        lock_s=LIMIT_S,
        unread_max=1000,
    )
    results = await doctor.examine()
    assert [(result.check.name, result.failure) for result in results if result.failure] == []
    return {result.check.name: result for result in results}


def wrong(results: dict[str, Result]) -> dict[str, list[str]]:
    """Check → examples, where something is wrong still."""
    return {name: result.examples for name, result in results.items() if result.left}
