"""What tests of the log in Redis Streams share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.brokers.base import Broker, Record, Subscription
from app.errors import AppError, Busy
from tests.contract.logs import positions, values

FAST = {"append_timeout_s": 0.6, "timeout_s": 0.4}


async def take(subscription: Subscription, count: int) -> list[Record]:
    """Exactly `count` records; Busy is waited out."""
    records: list[Record] = []
    async with asyncio.timeout(20):
        while len(records) < count:
            try:
                records += await subscription.fetch(500)
            except Busy:
                await asyncio.sleep(0.02)
    assert len(records) == count
    return records


async def until_read(subscription: Subscription, *expected: bytes) -> list[Record]:
    """Exactly these values, in any order of partitions."""
    records = await take(subscription, len(expected))
    assert sorted(values(records)) == sorted(expected)
    return records


async def waiting_in(broker: Broker) -> int:
    """How much the log holds; none while it is away."""
    try:
        return sum((await broker.backlog()).values())
    except Busy:
        await asyncio.sleep(0.01)
        return 0


async def until_appended(broker: Broker, partition: int, value: bytes) -> None:
    """Append, however often that takes."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await broker.append(partition, [value])
            except AppError:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def fetching(subscription: Subscription) -> AsyncIterator[list[Record]]:
    """Fetch and commit in the background; gives what came."""
    came: list[Record] = []

    async def fetch() -> None:
        while True:
            try:
                records = await subscription.fetch(500)
                came.extend(records)
                await subscription.commit(positions(records))
            except Busy:
                await asyncio.sleep(0.02)

    task = asyncio.ensure_future(fetch())
    try:
        yield came
    finally:
        task.cancel()
        await asyncio.wait({task})
