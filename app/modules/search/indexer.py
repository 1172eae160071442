"""Brings stored messages into the index, behind the commit: an ack never waits for it.

What is done is written in the transaction that does it, per group, as the last number indexed. Numbers are dense and become visible in
their order, so nothing is left out whatever is killed when, and messages from before the index was there are found like new ones.
"""

import asyncio
import time

from app.lifecycle import CrashPoint
from app.metrics import Metrics
from app.modules.messages.models import KIND_TEXT
from app.modules.search.blocks import Blocks
from app.modules.search.folding import fold
from app.modules.search.index_repository import IndexRepository
from app.modules.search.signatures import Signer
from app.modules.search.turns import Breaths
from app.storage.postgres import Postgres
from app.storage.retry import FAILED, Retries


class Indexer:
    """Every process with a consumer runs one; a lock in PostgreSQL lets one work at a time, the others take over when it is gone."""

    def __init__(
        self,
        postgres: Postgres,
        repository: IndexRepository,
        crash: CrashPoint,
        metrics: Metrics,
        *,
        interval_s: float,
        look_share: float,
        share: float,
        groups_max: int,
        batch_max: int,
        block_messages: int,
        block_words: int,
        backoff_max_s: float,
    ) -> None:
        self._postgres = postgres
        self._repository = repository
        self._crash = crash
        self._metrics = metrics
        self._interval_s = interval_s
        self._look_share = look_share
        self._share = share
        self._groups_max = groups_max
        self._batch_max = batch_max
        self._block_messages = block_messages
        self._block_words = block_words
        self._backoff_max_s = backoff_max_s
        self._signer = Signer()

    async def run(self) -> None:
        """Look for what is behind every `interval_s`, until cancelled."""
        wait_s = self._interval_s
        retries = Retries("search_index_failed", max_s=self._backoff_max_s)
        while True:
            await asyncio.sleep(wait_s)
            try:
                wait_s = await self.catch_up()
            except FAILED as error:
                # Searches lag and the metric shows it; chat must not stop for that.
                await retries.wait(error)
            else:
                retries.over()

    async def catch_up(self) -> float:
        """Index what is behind now, of at most `groups_max` groups. Returns the seconds until the next look. Raises Busy."""
        began = time.monotonic()
        behind = await self._repository.behind(self._groups_max)
        looked_s = time.monotonic() - began
        self._metrics.search_behind.set(sum(missing for _, missing in behind))
        # A look takes longer with every group there is; the pauses keep it to its share of one connection.
        pause_s = max(self._interval_s, looked_s / self._look_share)
        waiting: list[int] = []
        messages = 0
        for group_id, missing in behind:
            waiting.append(group_id)
            messages += missing
            if messages >= self._batch_max or len(waiting) >= self._batch_max:
                if not await self._index_all(waiting):
                    return pause_s
                waiting, messages = [], 0
        if waiting and not await self._index_all(waiting):
            return pause_s
        return pause_s if len(behind) < self._groups_max else 0

    async def _index_all(self, group_ids: list[int]) -> bool:
        """Until nothing of these groups is left. False: another indexer is at it."""
        while True:
            began = time.monotonic()
            indexed = await self._index(group_ids)
            if indexed is None:
                return False
            # Between short batches the commits that people wait for get through.
            await asyncio.sleep((time.monotonic() - began) * (1 / self._share - 1))
            if indexed < self._batch_max:
                return True

    async def _index(self, group_ids: list[int]) -> int | None:
        async with self._postgres.transaction() as connection:
            if not await self._repository.lock(connection):
                return None
            messages = await self._repository.read(connection, group_ids, self._batch_max)
            if not messages:
                return 0
            indexed = {m.group_id: m.indexed_seq for m in messages}
            last_blocks = await self._repository.last_blocks(connection, indexed)
            blocks = Blocks(self._signer, messages_max=self._block_messages, words_max=self._block_words)
            breaths = Breaths()
            group_id = None
            for m in messages:
                if m.group_id != group_id:
                    group_id = m.group_id
                    blocks.begin(group_id, m.indexed_seq, last_blocks.get(group_id))
                blocks.add(m.seq, m.message_id, fold(m.body) if m.kind == KIND_TEXT else "")
                await breaths.take()
            await self._repository.write(connection, blocks.filled)
            # Rising within a group, so the last one counts.
            await self._repository.move(connection, {m.group_id: m.seq for m in messages})
            self._crash("before_index_commit")
        self._metrics.search_indexed.inc(len(messages))
        self._metrics.search_lag_seconds.set(time.time() - min(m.ts for m in messages) / 1000)
        return len(messages)
