"""Beside the consumer: how many dead letters wait, and which a command in another process has taken up."""

import asyncio

from app.consumer.dead_letter_table import DeadLetterTable
from app.delivery.publisher import Publisher
from app.metrics import Metrics
from app.storage.retry import FAILED, Retries


class DeadLetterWatch:
    """The command that replays only stores; here its messages become heads, so that gateways send a `gap` and clients pull.

    So members are told whatever the delivery is, and when the command is killed right after it has stored: what tells of a message is
    committed with it.
    """

    def __init__(self, table: DeadLetterTable, publisher: Publisher, metrics: Metrics) -> None:
        self._table = table
        self._publisher = publisher
        self._metrics = metrics
        self._seen: int | None = None
        self._announced: set[int] = set()
        """Claims of the last look, which the next one finds again."""

    async def run(self, interval_s: float) -> None:
        """Look every `interval_s`, until cancelled."""
        retries = Retries("dead_letters_not_seen", max_s=interval_s)
        while True:
            try:
                await self.look()
            except FAILED as error:
                await retries.wait(error)
            else:
                retries.over()
            await asyncio.sleep(interval_s)

    async def look(self) -> None:
        """Measure, and announce what is new. Raises Busy."""
        waiting, oldest_s = await self._table.waiting()
        self._metrics.dead_letters_waiting.set(waiting)
        self._metrics.dead_letters_oldest_seconds.set(oldest_s)
        if self._seen is None:
            # What was replayed before there was anybody to tell is found by whoever connects.
            self._seen = await self._table.newest_audit_id()
        self._seen, heads = await self._table.claimed_since(self._seen)
        self._publisher.announce(head for claim, head in heads.items() if claim not in self._announced)
        self._announced = set(heads)
