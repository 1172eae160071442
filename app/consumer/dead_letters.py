"""Sends that cannot be stored though the store is there: kept whole with the reason, so that they can be looked at and replayed."""

from hashlib import sha256

import structlog

from app.brokers.base import Record
from app.consumer.fence import Fence
from app.modules.messages.models import Send
from app.storage.postgres import Postgres

log = structlog.get_logger(__name__)


class DeadLetters:
    """The table `dead_letters`."""

    def __init__(self, postgres: Postgres, fence: Fence) -> None:
        self._postgres = postgres
        self._fence = fence

    async def add(self, broker: str, record: Record, send: Send | None, reason: str) -> None:
        """Put one record aside, unless its send waits there from an earlier try; `send` is None when it is none.

        Raises Busy when PostgreSQL is away, StaleOwner when its partition has a new owner.
        """
        async with self._postgres.transaction() as connection:
            await self._fence.advance(connection, {record.partition: record.offset})
            added = await connection.fetchval(
                """INSERT INTO dead_letters (broker, partition, position, envelope, reason, send) VALUES ($1, $2, $3, $4, $5, $6)
                   ON CONFLICT (send) DO NOTHING RETURNING dead_letter_id""",
                broker,
                record.partition,
                str(record.offset),
                record.value,
                reason,
                None if send is None else _digest(send),
            )
        if added is not None:
            log.error(
                "dead_letter_added", broker=broker, partition=record.partition, position=record.offset, reason=reason
            )


def _digest(send: Send) -> bytes:
    group_id, sender_id, client_msg_id = send.key
    return sha256(b"%d %d %b %b" % (group_id, sender_id, client_msg_id.bytes, send.content_hash)).digest()
