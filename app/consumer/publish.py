"""After the commit: cache, publish, answer. Every message of the batch, new or repeat: an earlier life may have died before this."""

import asyncio
from collections.abc import Mapping, Sequence

from app.consumer.proposer import Proposer
from app.consumer.store import Committed, Outcome
from app.delivery.base import Delivery, DeliveryUnavailable
from app.delivery.publisher import Publisher
from app.lifecycle import CrashPoint
from app.metrics import Metrics
from app.modules.messages.hot import HotCache
from app.modules.messages.models import StoredMessage
from app.protocol.magpie_pb2 import Answer, Answers, GroupMessages

ByGroup = Mapping[int, Sequence[StoredMessage]]
"""Distinct stored messages by group, rising seq."""


class BatchPublisher:
    """Hands a committed batch down. Idempotent: on an error it may be called again with the same batch."""

    def __init__(
        self,
        hot: HotCache,
        proposer: Proposer,
        publisher: Publisher,
        delivery: Delivery,
        crash: CrashPoint,
        metrics: Metrics,
    ) -> None:
        self._hot = hot
        self._proposer = proposer
        self._publisher = publisher
        self._delivery = delivery
        self._crash = crash
        self._metrics = metrics

    async def correct(self, batch: Committed) -> None:
        """Put the counters right that proposed other numbers than were committed, before they propose again. Raises redis errors."""
        await self._proposer.correct(batch.proposed, {group: head[0] for group, head in batch.heads.items()})

    async def publish(self, batch: Committed) -> None:
        """Raises redis errors or DeliveryUnavailable when something could not be handed over."""
        by_group = _by_group(batch.outcomes)
        self._crash("before_publish")
        # Both are done before either failure is told: a batch that is handed down again never meets its earlier self.
        done = await asyncio.gather(self._cache(by_group), self._hand_down(batch, by_group), return_exceptions=True)
        for failure in done:
            if failure is not None:
                raise failure
        self._count(batch.outcomes)

    async def _cache(self, by_group: ByGroup) -> None:
        if by_group:
            with self._metrics.stage("cache"):
                await self._hot.store({group: [(m.seq, m.item) for m in found] for group, found in by_group.items()})

    async def _hand_down(self, batch: Committed, by_group: ByGroup) -> None:
        with self._metrics.stage("publish"):
            parts = [
                GroupMessages(
                    group_id=group,
                    access_version=batch.heads[group][1],
                    first_seq=run[0].seq,
                    items=[m.item for m in run],
                )
                for group, found in by_group.items()
                # Nobody can be shown to be a member of a group whose head is lost; who repeats a message of it is answered.
                if group in batch.heads
                for run in _runs(found)
            ]
            answers = _answers(batch.outcomes)
            if not parts:
                await self._delivery.answer(answers)
            elif not await self._publisher.messages(parts, answers):
                raise DeliveryUnavailable("messages were not published")

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.error is not None:
                self._metrics.messages_refused.labels(outcome.error.code).inc()
            elif outcome.repeat:
                self._metrics.messages_repeated.inc()


def _by_group(outcomes: Sequence[Outcome]) -> ByGroup:
    found: dict[int, dict[int, StoredMessage]] = {}
    for outcome in outcomes:
        if outcome.stored is not None:
            found.setdefault(outcome.stored.key[0], {})[outcome.stored.seq] = outcome.stored
    return {group: [by_seq[seq] for seq in sorted(by_seq)] for group, by_seq in found.items()}


def _runs(messages: Sequence[StoredMessage]) -> list[list[StoredMessage]]:
    """Split where seqs are not contiguous: repeats may be far apart."""
    runs: list[list[StoredMessage]] = []
    for message in messages:
        if runs and runs[-1][-1].seq + 1 == message.seq:
            runs[-1].append(message)
        else:
            runs.append([message])
    return runs


def _answers(outcomes: Sequence[Outcome]) -> dict[str, list[Answers]]:
    by_life: dict[tuple[str, str], Answers] = {}
    for outcome in outcomes:
        origin = outcome.send.origin
        life = (origin.node_id, origin.boot_id)
        if life not in by_life:
            by_life[life] = Answers(boot_id=origin.boot_id)
        by_life[life].answers.append(_answer(outcome))
    answers: dict[str, list[Answers]] = {}
    for (node_id, _), for_life in by_life.items():
        answers.setdefault(node_id, []).append(for_life)
    return answers


def _answer(outcome: Outcome) -> Answer:
    number = outcome.send.origin.request_id
    if outcome.error is not None:
        error = outcome.error
        return Answer(request_id=number, error_code=error.code, error_message=error.message, outcome=error.outcome)
    stored = outcome.stored
    if stored is None:
        raise AssertionError("an outcome without a message or an error")
    return Answer(
        request_id=number,
        message_id=stored.message_id,
        seq=stored.seq,
        ts=stored.ts,
        item=stored.item,
        repeat=outcome.repeat,
    )
