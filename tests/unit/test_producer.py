"""The producer in front of a log of which one partition does not answer, or breaks the contract."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from app.brokers.memory import MemoryBroker
from app.errors import AppError, Busy
from app.metrics import Metrics
from app.modules.messages.models import Draft, from_envelope
from app.modules.messages.producer import MessageProducer
from app.protocol.magpie_pb2 import Answer

PARTITIONS = 4


class StuckLog(MemoryBroker):
    """Appends to the partitions in `stuck` are answered by the test, or by nobody."""

    def __init__(self) -> None:
        super().__init__(PARTITIONS, 1000)
        self.stuck: dict[int, list[asyncio.Future[None]]] = {}
        self.sizes: list[int] = []
        """Of the appends to them."""

    def append(self, partition: int, values: Sequence[bytes]) -> asyncio.Future[None]:
        if partition not in self.stuck:
            return super().append(partition, values)
        self.sizes.append(len(values))
        self.stuck[partition].append(asyncio.get_running_loop().create_future())
        return self.stuck[partition][-1]


class Writer:
    """May send what it likes, and keeps its failures."""

    def __init__(self) -> None:
        self.unacked = 0
        self.failures: dict[int, AppError] = {}
        self.answers: dict[int, str] = {}

    async def take_sends(self, user_ids: Sequence[int]) -> list[float]:
        return [0.0] * len(user_ids)

    def on_answer(self, request_id: int, answer: Answer) -> None:
        self.answers[request_id] = answer.outcome

    def on_failure(self, request_id: int, error: AppError) -> None:
        self.failures[request_id] = error


@asynccontextmanager
async def sending(
    broker: StuckLog, writer: Writer, pace_ms: float = 0, batch_max: int = 100
) -> AsyncIterator[MessageProducer]:
    producer = MessageProducer(
        broker,
        writer,
        Metrics(),
        node_id="n",
        boot_id="b",
        per_connection=100,
        per_partition=100,
        total=100,
        pace_ms=pace_ms,
        batch_max=batch_max,
        send_timeout_s=60,
    )
    running = asyncio.ensure_future(producer.run())
    try:
        yield producer
    finally:
        running.cancel()
        await asyncio.wait({running})


def _draft(broker: StuckLog, partition: int, number: int) -> Draft:
    group = next(g for g in range(1, 1000) if broker.partition_of(g) == partition)
    return Draft(group, 7, UUID(int=number), "text", "x", b"h" * 32)


async def _waiting(broker: StuckLog, partition: int, count: int) -> None:
    async with asyncio.timeout(5):
        while len(broker.logs[partition].records) < count:
            await asyncio.sleep(0.001)


async def _send_to_both(producer: MessageProducer, broker: StuckLog, writer: Writer, count: int) -> None:
    """2, 4, … to partition 0, and one to partition 1 after each: when that is in the log, the other got as far as it can."""
    for number in range(1, count + 1):
        producer.submit(_draft(broker, 0, 2 * number), writer, 2 * number)
        producer.submit(_draft(broker, 1, 2 * number + 1), writer, 2 * number + 1)
        await _waiting(broker, 1, number)


async def test_a_partition_that_does_not_answer_does_not_hold_up_the_others() -> None:
    broker, writer = StuckLog(), Writer()
    broker.stuck[0] = []
    async with sending(broker, writer) as producer:
        await _send_to_both(producer, broker, writer, 5)
        assert not writer.failures
        broker.stuck[0][0].set_exception(Busy("away", retry_after_ms=1))
        async with asyncio.timeout(5):
            while not writer.failures:
                await asyncio.sleep(0.001)
        assert list(writer.failures) == [2]
    assert all(append.done() for append in broker.stuck[0])


async def test_what_comes_during_an_append_makes_the_next_one_larger() -> None:
    broker, writer = StuckLog(), Writer()
    broker.stuck[0] = []
    async with sending(broker, writer) as producer:
        await _send_to_both(producer, broker, writer, 5)
        assert broker.sizes == [1]
        broker.stuck[0][0].set_result(None)
        async with asyncio.timeout(5):
            while len(broker.sizes) < 2:
                await asyncio.sleep(0.001)
        assert broker.sizes == [1, 4]


async def test_what_was_lost_goes_ahead_of_what_waits_for_its_append() -> None:
    broker, writer = StuckLog(), Writer()
    async with sending(broker, writer) as producer:
        producer.submit(_draft(broker, 0, 99), writer, 99)
        await _waiting(broker, 0, 1)
        broker.stuck[0] = []
        await _send_to_both(producer, broker, writer, 2)
        assert broker.sizes == [1]
        assert producer.on_answers_lost()
        under_way = broker.stuck.pop(0)
        under_way[0].set_result(None)
        await _waiting(broker, 0, 3)
        numbers = [from_envelope(record.value).key[2].int for record in broker.logs[0].records]
    # The first of the two is under way to where nothing is kept.
    assert numbers == [99, 99, 4]


async def test_sends_are_moved_no_sooner_than_their_pace_says() -> None:
    broker, writer = StuckLog(), Writer()
    async with sending(broker, writer, pace_ms=3_600_000) as producer:
        producer.submit(_draft(broker, 0, 1), writer, 1)
        await _waiting(broker, 0, 1)
        producer.submit(_draft(broker, 0, 2), writer, 2)
        await asyncio.sleep(0.05)
        assert len(broker.logs[0].records) == 1


async def test_as_many_as_an_append_holds_do_not_wait() -> None:
    broker, writer = StuckLog(), Writer()
    async with sending(broker, writer, pace_ms=3_600_000, batch_max=1) as producer:
        for number in (1, 2, 3):
            producer.submit(_draft(broker, 0, number), writer, number)
        await _waiting(broker, 0, 3)


@pytest.mark.parametrize("lost", [False, True])
async def test_what_stands_in_the_log_twice_is_not_said_to_have_no_outcome(lost: bool) -> None:
    broker, writer = StuckLog(), Writer()
    async with sending(broker, writer) as producer:
        producer.submit(_draft(broker, 0, 1), writer, 1)
        await _waiting(broker, 0, 1)
        if lost:
            producer.on_answers_lost()
            await _waiting(broker, 0, 2)
        producer.on_answer(Answer(request_id=1, error_code="forbidden", error_message="muted", outcome="none"))
    assert writer.answers == {1: "unknown" if lost else "none"}


async def test_what_no_log_may_raise_ends_the_producer() -> None:
    broker, writer = StuckLog(), Writer()
    broker.stuck[0] = []
    async with sending(broker, writer) as producer:
        running = next(task for task in asyncio.all_tasks() if "MessageProducer.run" in repr(task))
        producer.submit(_draft(broker, 0, 1), writer, 1)
        async with asyncio.timeout(5):
            while not broker.stuck[0]:
                await asyncio.sleep(0.001)
        broker.stuck[0][0].set_exception(ValueError("a bug"))
        with pytest.raises(ValueError, match="a bug"):
            await running


async def test_at_the_end_everything_taken_in_gets_into_the_log() -> None:
    broker, writer = StuckLog(), Writer()
    broker.stuck[0] = []
    async with sending(broker, writer) as producer:
        producer.submit(_draft(broker, 0, 1), writer, 1)
        producer.submit(_draft(broker, 1, 2), writer, 2)
        flushing = asyncio.create_task(producer.flush())
        await _waiting(broker, 1, 1)
        assert not flushing.done()
        broker.stuck[0][0].set_result(None)
        async with asyncio.timeout(5):
            await flushing
