"""While a batch is published the next one is stored; never more, never in another order, and nothing that fails stays unnoticed."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import pytest

from app.brokers.base import OwnershipListener, Record, Subscription
from app.brokers.memory import MemoryBroker
from app.consumer.fence import StaleOwner
from app.consumer.loop import Consumer
from app.consumer.store import Committed, Outcome
from app.errors import Busy
from app.lifecycle import CrashPoint, Readiness
from app.metrics import Metrics
from app.modules.messages.models import Draft, to_envelope
from app.protocol.magpie_pb2 import Origin

SOON_S = 5.0
HOUR_MS = 3_600_000.0


def record(offset: int) -> Record:
    draft = Draft(1, 2, uuid4(), "text", "x", bytes(32))
    return Record(0, offset, to_envelope(draft, Origin()), 0)


class Steps(Subscription):
    """One record in each batch, or all of them `together`. Writes down what is done, in order; `held` names a step that waits."""

    def __init__(self, batches: int, *, together: bool = False) -> None:
        self.done: list[str] = []
        self.failing: dict[str, list[Exception]] = {}
        numbers = list(range(1, batches + 1))
        self._left = [numbers] if together else [[number] for number in numbers]
        self._held: dict[str, asyncio.Event] = {}

    def hold(self, step: str) -> Callable[[], None]:
        """It waits until the answer is called."""
        self._held[step] = asyncio.Event()
        return self._held[step].set

    async def step(self, name: str) -> None:
        if name in self._held:
            await self._held[name].wait()
        if self.failing.get(name):
            raise self.failing[name].pop(0)
        self.done.append(name)

    async def until(self, name: str) -> None:
        async with asyncio.timeout(SOON_S):
            while name not in self.done:
                await asyncio.sleep(0.001)

    # The subscription.
    async def fetch(self, max_records: int) -> list[Record]:
        if not self._left:
            await asyncio.Event().wait()
        numbers = self._left.pop(0)
        await self.step(f"fetch {numbers[-1]}")
        return [record(number) for number in numbers]

    async def commit(self, positions: Mapping[int, int]) -> None:
        await self.step(f"position {positions[0]}")

    async def close(self) -> None:
        self.done.append("close")

    # The store, and the fence.
    def judged(self, partition: int, offset: int) -> bool:
        return False

    async def store(self, sends: Sequence[Any], positions: Mapping[int, int]) -> Committed:
        await self.step(f"store {positions[0]}")
        return Committed([], {}, {0: positions[0]})

    # The publisher.
    async def correct(self, batch: Committed) -> None:
        await self.step(f"correct {batch.proposed[0]}")

    async def publish(self, batch: Committed) -> None:
        await self.step(f"publish {batch.proposed[0]}")


class Log(MemoryBroker):
    def __init__(self, steps: Steps) -> None:
        super().__init__(1, 1)
        self._steps = steps

    async def subscribe(self, listener: OwnershipListener) -> Subscription:
        return self._steps


def consumer_of(steps: Steps, readiness: Readiness | None = None, **changed: float) -> Consumer:
    limits: dict[str, Any] = {"batch_max": 9, "pace_ms": 0.0, "backoff_min_s": 0.001, "backoff_max_s": 0.01} | changed
    parts: Any = steps
    return Consumer(
        Log(steps), parts, parts, parts, parts, readiness or Readiness(), CrashPoint(""), Metrics(), **limits
    )


def begin(steps: Steps, **changed: Any) -> tuple[Consumer, "asyncio.Future[None]"]:
    """One at work."""
    consumer = consumer_of(steps, **changed)
    return consumer, asyncio.ensure_future(consumer.run())


async def test_one_batch_is_stored_while_the_one_before_is_published_and_no_third() -> None:
    steps = Steps(batches=4)
    publish = steps.hold("publish 1")
    consumer, running = begin(steps)
    await steps.until("correct 2")
    await asyncio.sleep(0.05)
    assert steps.done == ["fetch 1", "store 1", "correct 1", "fetch 2", "store 2", "correct 2"]
    publish()
    await steps.until("position 4")
    published = [step for step in steps.done if step.split()[0] in ("publish", "position")]
    assert published == [f"{step} {number}" for number in range(1, 5) for step in ("publish", "position")]
    consumer.stop()
    await running


async def test_what_is_stored_of_a_halved_batch_is_published_though_the_rest_must_wait() -> None:
    steps = Steps(batches=2, together=True)
    steps.failing["store 2"] = [ValueError("poison"), *[Busy("away")] * 100_000]
    consumer, running = begin(steps)
    await steps.until("position 1")
    steps.failing["store 2"].clear()
    await steps.until("position 2")
    assert steps.done == [
        "fetch 2",
        *("store 1", "correct 1", "publish 1", "position 1"),
        *("store 2", "correct 2", "publish 2", "position 2"),
    ]
    consumer.stop()
    await running


async def test_a_batch_is_read_no_sooner_than_its_pace_says() -> None:
    steps = Steps(batches=2)
    consumer, running = begin(steps, pace_ms=HOUR_MS)
    await steps.until("position 1")
    await asyncio.sleep(0.05)
    assert "fetch 2" not in steps.done
    consumer.stop()
    async with asyncio.timeout(SOON_S):
        await running


async def test_after_a_full_batch_the_next_is_read_at_once() -> None:
    steps = Steps(batches=3)
    consumer, running = begin(steps, pace_ms=HOUR_MS, batch_max=1)
    await steps.until("position 3")
    consumer.stop()
    await running


class Unpublishable(Steps):
    """One message of a batch cannot be handed down."""

    bad = 2

    async def store(self, sends: Sequence[Any], positions: Mapping[int, int]) -> Committed:
        self.sends = sends
        return Committed([Outcome(send) for send in sends], {}, {0: positions[0]})

    async def publish(self, batch: Committed) -> None:
        if any(one.send is self.sends[self.bad] and one.error is None for one in batch.outcomes):
            raise KeyError
        for one in batch.outcomes:
            self.done.append(f"{self.sends.index(one.send)} {one.error and one.error.outcome}")


async def test_what_cannot_be_published_is_answered_alone() -> None:
    steps = Unpublishable(batches=4, together=True)
    consumer, running = begin(steps)
    await steps.until("position 4")
    assert steps.done == ["fetch 4", "correct 4", "0 None", "1 None", "2 unknown", "3 None", "position 4"]
    consumer.stop()
    await running


async def test_counters_are_put_right_before_they_propose_again() -> None:
    steps = Steps(batches=2)
    steps.failing["correct 1"] = [Busy("away"), Busy("away")]
    consumer, running = begin(steps)
    await steps.until("position 2")
    assert steps.done.index("correct 1") < steps.done.index("store 2")
    assert steps.done.count("store 1") == 1, "stored once, though Redis was away after the commit"
    consumer.stop()
    await running


async def test_what_is_committed_is_published_before_it_stops() -> None:
    steps = Steps(batches=1)
    publish = steps.hold("publish 1")
    consumer, running = begin(steps)
    await steps.until("correct 1")
    consumer.stop()
    await asyncio.sleep(0.05)
    assert not running.done()
    publish()
    async with asyncio.timeout(SOON_S):
        await running
    assert steps.done[-3:] == ["publish 1", "position 1", "close"]


async def test_who_loses_a_partition_publishes_what_was_committed_before() -> None:
    steps = Steps(batches=2)
    steps.failing["store 2"] = [StaleOwner()]
    publish = steps.hold("publish 1")
    consumer, running = begin(steps)
    await steps.until("fetch 2")
    publish()
    await steps.until("close")
    assert steps.done[-3:] == ["publish 1", "position 1", "close"]
    consumer.stop()
    await running


async def test_who_loses_a_partition_leaves_before_it_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(batches=1)
    steps.failing["store 1"] = [StaleOwner()]

    async def pause(*_: object) -> None:
        steps.done.append("pause")

    monkeypatch.setattr(Consumer, "_back_off", pause)
    consumer, running = begin(steps)
    await steps.until("pause")
    assert steps.done == ["fetch 1", "close", "pause"]
    consumer.stop()
    await running


async def test_a_failure_while_nothing_comes_ends_it_at_once() -> None:
    steps = Steps(batches=1)
    steps.failing["position 1"] = [ZeroDivisionError()]
    async with asyncio.timeout(SOON_S):
        with pytest.raises(ZeroDivisionError):
            await consumer_of(steps).run()
    assert steps.done[-1] == "close"


@pytest.mark.parametrize("step", ["publish", "position"])
async def test_it_is_not_ready_while_a_batch_cannot_be_finished_though_the_next_one_is_stored(step: str) -> None:
    steps, readiness = Steps(batches=2), Readiness()
    steps.failing[f"{step} 1"] = [Busy("away")] * 100_000
    fetch = steps.hold("fetch 2")
    consumer = consumer_of(steps, readiness)
    running = asyncio.ensure_future(consumer.run())
    async with asyncio.timeout(SOON_S):
        while not readiness.reasons:
            await asyncio.sleep(0.001)
    clear, cleared = readiness.clear, list[str]()

    def remember(part: str) -> None:
        cleared.extend({part} & readiness.reasons.keys())
        clear(part)

    readiness.clear = remember  # type: ignore[method-assign]  # looks on
    fetch()
    await steps.until("correct 2")
    assert cleared == []
    assert list(readiness.reasons) == [step]
    steps.failing[f"{step} 1"].clear()
    await steps.until("position 2")
    assert readiness.reasons == {}
    consumer.stop()
    await running


async def test_who_is_cancelled_waits_for_nobody() -> None:
    steps = Steps(batches=2)
    steps.hold("publish 1")
    _, running = begin(steps)
    await steps.until("correct 2")
    running.cancel()
    async with asyncio.timeout(SOON_S):
        with pytest.raises(asyncio.CancelledError):
            await running
    assert "publish 1" not in steps.done
