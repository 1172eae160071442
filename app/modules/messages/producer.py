"""The way of a send into the log, for WebSocket and HTTP alike: bounds, rate limit, append, and the wait for the answer.

`submit` never waits: everything that takes time happens for a micro-batch of sends at once. Handling a send touches no database.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, perf_counter
from typing import Protocol

import structlog

from app.brokers.base import Broker
from app.errors import ERROR_TYPES, AppError, Busy, Internal, RateLimited, SendTimeout
from app.metrics import Metrics
from app.modules.messages.models import Draft, Key, to_envelope
from app.protocol.magpie_pb2 import Answer, Origin

log = structlog.get_logger(__name__)

TIMEOUT_SWEEP_S = 0.25
FLUSH_LOOK_S = 0.02
MIN_RETRY_MS, MAX_RETRY_MS = 100, 10_000


class SendLimiter(Protocol):
    """The send bucket of users."""

    async def take_sends(self, user_ids: Sequence[int]) -> list[float]:
        """One token for each entry, in order: 0.0 = granted, else seconds until one is there. Never fails."""


class Sender(Protocol):
    """Who waits for answers: a connection or an HTTP call. Methods must not block or raise."""

    unacked: int
    """Sends without an answer; counted by the producer."""

    def on_answer(self, request_id: int, answer: Answer) -> None:
        """The send is stored, or refused by the consumer."""

    def on_failure(self, request_id: int, error: AppError) -> None:
        """The send did not get an answer."""


@dataclass(slots=True)
class _Pending:
    number: int
    draft: Draft
    partition: int
    started: float
    waiters: list[tuple[Sender, int]] = field(default_factory=list)
    appended: bool = False
    repeated: bool = False


class MessageProducer:
    """Un-acked sends of this process, by number and by idempotency key."""

    def __init__(
        self,
        broker: Broker,
        limiter: SendLimiter,
        metrics: Metrics,
        *,
        node_id: str,
        boot_id: str,
        per_connection: int,
        per_partition: int,
        total: int,
        pace_ms: float,
        batch_max: int,
        send_timeout_s: float,
    ) -> None:
        self._broker = broker
        self._limiter = limiter
        self._metrics = metrics
        self._node_id = node_id
        self._boot_id = boot_id
        self._per_connection = per_connection
        self._per_partition = per_partition
        self._total = total
        self._pace_s = pace_ms / 1000
        self._batch_max = batch_max
        self._send_timeout_s = send_timeout_s
        self._number = 0
        self._not_before_s = 0.0
        self._pending: dict[int, _Pending] = {}
        self._by_key: dict[Key, _Pending] = {}
        self._in_partition = [0] * broker.partitions
        self._new: deque[_Pending] = deque()
        self._waiting: list[deque[_Pending]] = [deque() for _ in range(broker.partitions)]
        """For each partition, in its order: what was lost, then what is within the limits and not appended yet."""
        self._under_way: dict[int, asyncio.Future[None]] = {}
        """The append to each partition that has one."""
        self._fault: BaseException | None = None
        self._wake_up = asyncio.Event()
        self._answered = 0
        self._answers_per_s = 0.0
        broker.on_lost = self.on_answers_lost

    def submit(self, draft: Draft, sender: Sender, request_id: int) -> None:
        """Take a send in. Raises Busy (outcome none) beyond a bound; every other result comes through `sender`."""
        if sender.unacked >= self._per_connection:
            raise self._busy("too many of your messages wait for their answer")
        key = (draft.group_id, draft.sender_id, draft.client_msg_id)
        known = self._by_key.get(key)
        if known is not None and known.draft.content_hash == draft.content_hash:
            known.waiters.append((sender, request_id))
            sender.unacked += 1
            return
        partition = self._broker.partition_of(draft.group_id)
        if len(self._pending) >= self._total or self._in_partition[partition] >= self._per_partition:
            raise self._busy("the server has as many messages in work as it can")
        self._number += 1
        pending = _Pending(self._number, draft, partition, perf_counter(), [(sender, request_id)])
        self._pending[pending.number] = pending
        # The same key with other content goes its own way; the consumer answers conflict.
        self._by_key.setdefault(key, pending)
        self._in_partition[partition] += 1
        sender.unacked += 1
        self._new.append(pending)
        self._wake_up.set()

    def on_answer(self, answer: Answer) -> None:
        """An answer of the consumer arrived; later ones for the same send are dropped."""
        pending = self._pending.get(answer.request_id)
        if pending is None:
            return
        self._remove(pending)
        if pending.repeated and answer.outcome == "none":
            # It stands in the log once more, where it may be judged otherwise: a mute may be over then.
            answer.outcome = "unknown"
        self._answered += 1
        self._metrics.ack_seconds.observe(perf_counter() - pending.started)
        for sender, request_id in pending.waiters:
            sender.unacked -= 1
            sender.on_answer(request_id, answer)

    def on_answers_lost(self) -> bool:
        """Answers, or the log, may have got lost: what waits for an answer is appended once more, and its key finds what became of it.

        It goes ahead of what was not appended yet, so that the order of a connection stays. Answers whether there is any.
        """
        # Only once: a reader that is behind must not get more work for it.
        lost = [pending for pending in self._pending.values() if pending.appended and not pending.repeated]
        for pending in reversed(lost):
            pending.repeated = True
            self._waiting[pending.partition].appendleft(pending)
        # Not from within the broker, which calls this.
        asyncio.get_running_loop().call_soon(self._append_all)
        return any(waiting and waiting[0].appended for waiting in self._waiting)

    async def run(self) -> None:
        """Move new sends into the log until cancelled."""
        try:
            while True:
                await self._move()
        finally:
            for waiting in self._waiting:
                waiting.clear()
            for append in self._under_way.values():
                append.cancel()

    async def _move(self) -> None:
        if not (self._new or self._fault):
            self._wake_up.clear()
            await self._wake_up.wait()
        if self._fault is not None:
            raise self._fault
        if len(self._new) < self._batch_max:
            await asyncio.sleep(max(0.0, self._not_before_s - monotonic()))
        self._not_before_s = monotonic() + self._pace_s
        batch = [self._new.popleft() for _ in range(min(len(self._new), self._batch_max))]
        with self._metrics.stage("limits"):
            granted = await self._within_limits(batch)
        for pending in granted:
            self._waiting[pending.partition].append(pending)
        self._append_all()

    async def flush(self) -> None:
        """Wait until everything taken in stands in the log or was refused; `run` goes on meanwhile. Nothing new should come."""
        while not all(pending.appended for pending in self._pending.values()):  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(FLUSH_LOOK_S)

    async def watch(self) -> None:
        """Answer sends whose time is over, and measure the ack rate, until cancelled."""
        measured = monotonic()
        while True:
            await asyncio.sleep(TIMEOUT_SWEEP_S)
            now = monotonic()
            rate = self._answered / (now - measured)
            self._answers_per_s = rate if not self._answers_per_s else 0.8 * self._answers_per_s + 0.2 * rate
            self._answered, measured = 0, now
            self._metrics.pending_sends.set(len(self._pending))
            oldest = perf_counter() - self._send_timeout_s
            # Numbers rise with time, so the dict is in order of age.
            while self._pending and (first := next(iter(self._pending.values()))).started < oldest:
                self._fail(first, SendTimeout("no answer in time; send again with the same client_msg_id"))

    async def _within_limits(self, batch: list[_Pending]) -> list[_Pending]:
        waits = await self._limiter.take_sends([pending.draft.sender_id for pending in batch])
        granted = []
        for pending, wait_s in zip(batch, waits, strict=True):
            if wait_s > 0:
                retry_ms = max(1, round(wait_s * 1000))
                self._fail(pending, RateLimited("you are sending too fast", retry_after_ms=retry_ms))
            elif pending.number in self._pending:
                granted.append(pending)
        return granted

    def _append_all(self) -> None:
        for partition in range(len(self._waiting)):
            self._append(partition)

    def _append(self, partition: int) -> None:
        """Append what waits for a partition, one append at a time: what comes meanwhile makes the next one larger."""
        waiting = self._waiting[partition]
        if partition in self._under_way:
            return
        sends: list[_Pending] = []
        while waiting and len(sends) < self._batch_max:
            pending = waiting.popleft()
            if pending.number in self._pending:
                sends.append(pending)
        if sends:
            append = self._broker.append(partition, [self._envelope(pending) for pending in sends])
            self._under_way[partition] = append
            append.add_done_callback(partial(self._appended, partition, sends, perf_counter()))

    def _envelope(self, pending: _Pending) -> bytes:
        origin = Origin(node_id=self._node_id, boot_id=self._boot_id, request_id=pending.number)
        return to_envelope(pending.draft, origin)

    def _appended(self, partition: int, sends: list[_Pending], since: float, append: asyncio.Future[None]) -> None:
        del self._under_way[partition]
        if append.cancelled():
            return
        self._metrics.stage_seconds.labels("append").observe(perf_counter() - since)
        error = append.exception()
        if error is None:
            self._metrics.messages_in.inc(len(sends))
            for pending in sends:
                pending.appended = True
        elif isinstance(error, AppError):
            for pending in sends:
                if not pending.appended:
                    self._fail(pending, error)
                elif error.outcome == "none":
                    pending.repeated = False
        else:
            self._fault = error
            self._wake_up.set()
            return
        self._append(partition)

    def _busy(self, message: str) -> Busy:
        """Says to come back when half of what waits now is done, at the measured rate of answers."""
        wait_ms = MAX_RETRY_MS if self._answers_per_s < 1 else round(500 * len(self._pending) / self._answers_per_s)
        return Busy(f"{message}; try again shortly", retry_after_ms=min(max(wait_ms, MIN_RETRY_MS), MAX_RETRY_MS))

    def _fail(self, pending: _Pending, error: AppError) -> None:
        if pending.number not in self._pending:
            return
        self._remove(pending)
        self._metrics.messages_refused.labels(error.code).inc()
        for sender, request_id in pending.waiters:
            sender.unacked -= 1
            sender.on_failure(request_id, error)

    def _remove(self, pending: _Pending) -> None:
        del self._pending[pending.number]
        self._in_partition[pending.partition] -= 1
        draft = pending.draft
        key = (draft.group_id, draft.sender_id, draft.client_msg_id)
        if self._by_key.get(key) is pending:
            del self._by_key[key]


def answer_error(answer: Answer) -> AppError:
    """The error that a consumer's answer carries."""
    kind = ERROR_TYPES.get(answer.error_code, Internal)
    return kind(answer.error_message, outcome="none" if answer.outcome == "none" else "unknown")
