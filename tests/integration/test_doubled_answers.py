"""An answer may come twice, by two ways: whoever waits for it gets it once."""

import uuid
from collections.abc import AsyncIterator

import pytest

from app.delivery.base import ByNode
from app.delivery.memory import MemoryDelivery
from tests.running import Server, serving, settings_for


class DoublingDelivery(MemoryDelivery):
    """Hands every answer over twice: now, and once more with the next ones, in between which others were sent."""

    def __init__(self) -> None:
        super().__init__()
        self._late: list[ByNode] = []
        self.doubled = 0

    async def answer(self, answers: ByNode) -> None:
        await super().answer(answers)
        late, self._late = self._late, [answers]
        for earlier in [answers, *late]:
            self.doubled += 1
            await super().answer(earlier)


@pytest.fixture
async def doubling(dsn: str, redis_url: str) -> AsyncIterator[tuple[Server, DoublingDelivery]]:
    delivery = DoublingDelivery()
    async with serving(settings_for(dsn, redis_url), delivery) as server:
        yield server, delivery


async def test_a_doubled_answer_reaches_its_sender_once(doubling: tuple[Server, DoublingDelivery]) -> None:
    server, delivery = doubling
    ann = await server.user()
    group = await ann.group()
    repeated = str(uuid.uuid4())
    async with ann.socket() as socket:
        acks = [await socket.send(group, f"message {number}") for number in range(20)]
        acks += [await socket.send(group, "again", repeated) for _ in range(2)]
        assert [ack["type"] for ack in acks] == ["ok"] * 22
        assert [ack["seq"] for ack in acks] == [*range(1, 22), 21]
        assert not [frame for frame in await socket.nothing_but_pong() if "id" in frame]
    status, message = await ann.post(group, "over HTTP")
    assert (status, message["seq"]) == (201, 22)
    assert len(await ann.history(group)) == 22
    assert delivery.doubled > 20
