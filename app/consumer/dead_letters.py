"""Sends that cannot be stored though the store is there: kept whole with the reason, so that they can be looked at and replayed."""

import structlog

from app.brokers.base import Record
from app.consumer.fence import Fence
from app.storage.postgres import Postgres

log = structlog.get_logger(__name__)


class DeadLetters:
    """The table `dead_letters`."""

    def __init__(self, postgres: Postgres, fence: Fence) -> None:
        self._postgres = postgres
        self._fence = fence

    async def add(self, broker: str, record: Record, reason: str) -> None:
        """Put one record aside. Raises Busy when PostgreSQL is away, StaleOwner when its partition has a new owner."""
        async with self._postgres.transaction() as connection:
            await self._fence.advance(connection, {record.partition: record.offset})
            await connection.execute(
                "INSERT INTO dead_letters (broker, partition, position, envelope, reason) VALUES ($1, $2, $3, $4, $5)",
                broker,
                record.partition,
                str(record.offset),
                record.value,
                reason,
            )
        log.error("dead_letter_added", broker=broker, partition=record.partition, position=record.offset, reason=reason)
