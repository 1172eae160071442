"""The consumer is ready again when what it waited for is there, not only when the next message comes."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest

from app.brokers.base import OwnershipListener, Record, Subscription
from app.brokers.memory import MemoryBroker
from app.consumer import loop
from app.consumer.fence import StaleOwner
from app.consumer.loop import Consumer
from app.errors import Busy
from app.lifecycle import CrashPoint, Readiness
from app.metrics import Metrics
from app.modules.messages.models import Draft, to_envelope
from app.protocol.magpie_pb2 import Origin


class Script(Subscription):
    """Raises or returns these in turn, then waits for a record that never comes."""

    def __init__(self, steps: list[list[Record] | Exception]) -> None:
        self._steps = steps

    async def fetch(self, max_records: int) -> list[Record]:
        if not self._steps:
            await asyncio.Event().wait()
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Nothing to move."""

    async def close(self) -> None:
        """Nothing to give up."""


class Log(MemoryBroker):
    def __init__(self, *steps: list[Record] | Exception) -> None:
        super().__init__(1, 1)
        self._script = Script(list(steps))

    async def subscribe(self, listener: OwnershipListener) -> Subscription:
        return self._script


class Store:
    """Away once; then the batch belongs to another owner."""

    def __init__(self) -> None:
        self._answers: list[Exception] = [Busy("away"), StaleOwner()]

    def judged(self, partition: int, offset: int) -> bool:
        return False

    async def store(self, *_: object) -> None:
        raise self._answers.pop(0)


def record() -> Record:
    draft = Draft(1, 2, uuid4(), "text", "x", bytes(32))
    return Record(0, 0, to_envelope(draft, Origin()), 0)


@pytest.mark.parametrize(
    ("steps", "missing"), [((Busy("away"),), {"consumer"}), (([record()],), {"store"})], ids=["broker", "store"]
)
async def test_it_is_ready_again_on_a_quiet_log(
    monkeypatch: pytest.MonkeyPatch, steps: tuple[Any, ...], missing: set[str]
) -> None:
    monkeypatch.setattr(loop, "CALM_S", 0.05)
    readiness, told = Readiness(), set[str]()
    fail = readiness.fail

    def remember(part: str, reason: str, cause: object = None) -> None:
        told.add(part)
        fail(part, reason, cause)

    monkeypatch.setattr(readiness, "fail", remember)
    store: Any = Store()
    limits: dict[str, Any] = {"batch_max": 9, "pace_ms": 0.0, "backoff_min_s": 0.001, "backoff_max_s": 0.01}
    nothing: Any = None
    consumer = Consumer(Log(*steps), store, store, nothing, nothing, readiness, CrashPoint(""), Metrics(), **limits)
    running = asyncio.ensure_future(consumer.run())
    async with asyncio.timeout(5):
        while not missing <= told or readiness.reasons:
            await asyncio.sleep(0.01)
    consumer.stop()
    await running
