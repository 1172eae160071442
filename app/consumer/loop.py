"""The consumer: fetch a batch, store it, publish it, move the position. Nothing is lost: what fails comes again.

Batches are stored one after the other, and published one after the other; while one is published, the next one is stored.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import asyncpg
import structlog

from app.brokers.base import Broker, Record, Subscription
from app.consumer.dead_letters import DeadLetters
from app.consumer.fence import Fence, StaleOwner
from app.consumer.publish import BatchPublisher
from app.consumer.store import BatchStore, Committed, Outcome
from app.delivery.base import DeliveryUnavailable
from app.errors import Busy, Internal
from app.lifecycle import CrashPoint, Readiness
from app.metrics import Metrics
from app.modules.messages.models import Send, from_envelope
from app.storage.postgres import blames_data
from app.storage.redis import ERRORS

log = structlog.get_logger(__name__)
T = TypeVar("T")

AWAY: tuple[type[BaseException], ...] = (Busy, DeliveryUnavailable, *ERRORS, asyncpg.PostgresError)
"""A store is away or must be mended: wait and try again, unless PostgreSQL blames the data."""
CALM_S = 5.0
"""A fetch that has waited so long has a broker that answers: one that is away ends it sooner."""


class Consumer:
    """One reader of the log; `run` until cancelled."""

    def __init__(
        self,
        broker: Broker,
        fence: Fence,
        store: BatchStore,
        publisher: BatchPublisher,
        dead_letters: DeadLetters,
        readiness: Readiness,
        crash: CrashPoint,
        metrics: Metrics,
        *,
        batch_max: int,
        pace_ms: float,
        backoff_min_s: float,
        backoff_max_s: float,
    ) -> None:
        self._broker = broker
        self._fence = fence
        self._store = store
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._readiness = readiness
        self._crash = crash
        self._metrics = metrics
        self._batch_max = batch_max
        self._pace_s = pace_ms / 1000
        self._backoff_min_s = backoff_min_s
        self._backoff_max_s = backoff_max_s
        self._waits_s: dict[str, float] = {}
        self._not_before_s = 0.0
        self._stopping = asyncio.Event()
        self._fetching: asyncio.Future[list[Record]] | None = None

    async def run(self) -> None:
        """Consume until `stop` or cancelled. Who lost a partition to another drops its batch and joins again."""
        while not self._stopping.is_set():
            try:
                await self._consume()
            except StaleOwner as stale:
                log.warning("batch_dropped", reason=str(stale))
                self._metrics.batches_dropped.inc()
                # Its batch is no longer ours to store; the next one may be far.
                self._readiness.clear("store")
                await self._back_off("consumer", stale)

    def stop(self) -> None:
        """Begin no further batch; the one in work is stored, published and answered first."""
        self._stopping.set()
        if self._fetching is not None:
            self._fetching.cancel()

    async def watch(self, interval_s: float) -> None:
        """Measure what waits in the partitions owned, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                backlog = await self._broker.backlog()
            except Busy:
                continue  # /readyz tells already
            depth = sum(backlog.get(partition, 0) for partition in self._fence.partitions)
            self._metrics.log_depth.set(depth)
            if not depth:
                self._metrics.log_lag_seconds.set(0)

    async def _consume(self) -> None:
        """Join, read until it is time to stop, and leave: who waits for our partitions must not wait for our pauses."""
        subscription = await self._until_there("consumer", lambda: self._broker.subscribe(self._fence))
        try:
            await self._read(subscription)
        finally:
            await subscription.close()

    async def _read(self, subscription: Subscription) -> None:
        """While one batch is handed down and its position moved, the next one is fetched and stored: two at most."""
        before: asyncio.Task[None] | None = None
        try:
            while (records := await self._fetch(subscription)) is not None:
                self._crash("after_read")
                self._metrics.batch_size.observe(len(records))
                oldest_s = min(record.appended_ms for record in records) / 1000
                self._metrics.log_lag_seconds.set(max(0.0, time.time() - oldest_s))
                waiting: list[Sequence[Record]] = [records]
                while waiting:
                    part = waiting.pop()
                    committed = await self._store_part(part)
                    if committed is None:
                        # One half after the other, so the order of a group stays; each is a batch from here on.
                        middle = len(part) // 2
                        waiting += [part[middle:], part[:middle]]
                        continue
                    if before is not None:
                        await before
                    before = asyncio.create_task(self._finish(subscription, committed, _positions(part)))
                    before.add_done_callback(self._on_finished)
        except asyncio.CancelledError:
            if before is not None:
                before.cancel()
            raise
        finally:
            if before is not None:
                await before

    async def _finish(self, subscription: Subscription, committed: Committed, positions: Mapping[int, int]) -> None:
        """Publish what is committed: its senders wait for the answer. Then it need not come again."""
        await self._publish(committed)
        self._crash("before_position")
        with self._metrics.stage("position"):
            await self._until_there("position", lambda: subscription.commit(positions))

    async def _publish(self, committed: Committed) -> None:
        """Hand down. What cannot be stands alone at last, and its sender is told `unknown`; it is stored, so members pull it."""
        try:
            await self._until_there("publish", lambda: self._publisher.publish(committed))
        except Exception:
            # The consumer's edge again: it would come again with the next owner, and end that one, too.
            if len(committed.outcomes) > 1:
                for outcome in committed.outcomes:
                    await self._publish(replace(committed, outcomes=[outcome]))
                return
            log.exception("outcome_not_published", groups=[one.send.key[0] for one in committed.outcomes])
            error = Internal("the answer was lost; send it again with the same id")
            if answers := [Outcome(one.send, error=error) for one in committed.outcomes if one.error is None]:
                await self._publish(replace(committed, outcomes=answers))

    def _on_finished(self, finished: asyncio.Task[None]) -> None:
        """What failed must not wait for the next record to be noticed."""
        if not finished.cancelled() and finished.exception() is not None and self._fetching is not None:
            self._fetching.cancel()

    async def _fetch(self, subscription: Subscription) -> list[Record] | None:
        """The next batch; None when it is time to stop, or the batch before has failed."""
        if self._stopping.is_set():
            return None
        self._fetching = asyncio.ensure_future(
            self._until_there("consumer", lambda: self._wait_for_records(subscription))
        )
        try:
            return await self._fetching
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return None
        finally:
            self._fetching.cancel()
            self._fetching = None

    async def _wait_for_records(self, subscription: Subscription) -> list[Record]:
        # A full batch means that more is waiting.
        await asyncio.sleep(max(0.0, self._not_before_s - time.monotonic()))
        # It returns with records only, and none may come as long as we are not ready.
        calm = asyncio.get_running_loop().call_later(CALM_S, self._recovered, "consumer")
        try:
            with self._metrics.stage("fetch"):
                records = await subscription.fetch(self._batch_max)
            if len(records) < self._batch_max:
                self._not_before_s = time.monotonic() + self._pace_s
            return records
        finally:
            calm.cancel()

    async def _store_part(self, records: Sequence[Record]) -> Committed | None:
        """Store; None when some of it cannot be, for an error of the data or of our own. One that stands alone then is put aside."""
        sends: list[Send] = []
        try:
            sends.extend(
                from_envelope(record.value, judged=self._fence.judged(record.partition, record.offset))
                for record in records
            )
            committed = await self._until_there("store", lambda: self._store.store(sends, _positions(records)))
        except StaleOwner:
            raise
        except Exception as error:  # noqa: BLE001 - the reason is kept with the dead letter
            # The consumer's edge: whatever a message provokes, its partition moves on.
            if len(records) > 1:
                return None
            reason = error
            committed = await self._until_there("store", lambda: self._put_aside(records[0], sends, reason))
        # Before anybody asks for numbers again.
        await self._until_there("counters", lambda: self._publisher.correct(committed))
        return committed

    async def _put_aside(self, record: Record, sends: Sequence[Send], reason: BaseException) -> Committed:
        # Only the kind of failure: the message of a driver may quote the text.
        await self._dead_letters.add(self._broker.name, record, sends[0] if sends else None, type(reason).__name__)
        self._metrics.dead_letters.inc()
        error = Internal("the message could not be stored and was put aside for the operator")
        return Committed([Outcome(send, error=error) for send in sends], {}, {})

    async def _until_there(self, part: str, step: Callable[[], Awaitable[T]]) -> T:
        """Repeat a step while a store is away or out of order. `part` is this step's alone on /readyz: others go on beside it."""
        while True:
            try:
                result = await step()
            except AWAY as error:
                if blames_data(error):
                    raise
                await self._back_off(part, error)
            else:
                self._recovered(part)
                return result

    async def _back_off(self, part: str, error: BaseException) -> None:
        self._readiness.fail(part, f"messages wait ({type(error).__name__})", error)
        wait_s = min(max(self._backoff_min_s, 2 * self._waits_s.get(part, 0.0)), self._backoff_max_s)
        self._waits_s[part] = wait_s
        await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret

    def _recovered(self, part: str) -> None:
        self._readiness.clear(part)
        self._waits_s.pop(part, None)


def _positions(records: Sequence[Record]) -> Mapping[int, int]:
    """The last offset of each partition: offsets rise within it."""
    return {record.partition: record.offset for record in records}
