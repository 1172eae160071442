"""The contract of app/delivery/base.py, for every adapter. A new adapter is one function in `ADAPTERS`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from app.delivery.base import Channel, Delivery
from app.delivery.memory import MemoryDelivery
from app.delivery.redis_pubsub import RedisPubSubDelivery
from app.lifecycle import Readiness, Supervisor
from app.protocol.magpie_pb2 import Answer, Answers, Blob
from app.storage.redis import connect


class Heard:
    """A Receiver that remembers."""

    def __init__(self) -> None:
        self.blobs: list[tuple[Channel, int]] = []
        self.answers: list[int] = []
        self.order: list[str] = []
        self.reconnects = 0
        self.changed = asyncio.Event()

    def on_blob(self, channel: Channel, blob: Blob) -> None:
        self.blobs.append((channel, blob.number))
        self.order.append("blob")
        self.changed.set()

    def on_answers(self, answers: Answers) -> None:
        self.answers += [answer.request_id for answer in answers.answers]
        self.order.append("answers")
        self.changed.set()

    def on_reconnected(self) -> None:
        self.reconnects += 1
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def redis_pubsub(url: str, supervisor: Supervisor) -> Delivery:
    publisher = connect(url, pool_max=1, connect_timeout_s=1, command_timeout_s=1)
    subscriber = connect(url, pool_max=1, connect_timeout_s=1, command_timeout_s=1)
    return RedisPubSubDelivery(publisher, subscriber, supervisor, Readiness(), reconnect_max_s=0.2, timeout_s=1)


ADAPTERS = ("memory", "redis_pubsub")
Node = Callable[[str], Awaitable[tuple[Delivery, Heard]]]


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    deaths: list[str] = []
    supervisor = Supervisor(deaths.append)
    yield supervisor
    await supervisor.stop(5)
    assert deaths == []


@pytest.fixture(params=ADAPTERS)
async def node(request: pytest.FixtureRequest, supervisor: Supervisor, redis_url: str) -> AsyncIterator[Node]:
    """Starts a node; with the memory adapter every test has only one."""
    started: list[Delivery] = []

    async def start(node_id: str) -> tuple[Delivery, Heard]:
        delivery = MemoryDelivery() if request.param == "memory" else redis_pubsub(redis_url, supervisor)
        heard = Heard()
        await delivery.start(node_id, heard, tuple(Channel))
        started.append(delivery)
        return delivery, heard

    yield start
    for delivery in started:
        await delivery.stop()


async def test_blobs_arrive_in_the_order_of_publishing(node: Node) -> None:
    delivery, heard = await node("n1")
    for number in range(1, 101):
        await delivery.publish(Channel.GROUP, Blob(publisher="p", number=number))
    await heard.until(lambda: len(heard.blobs) == 100)
    assert heard.blobs == [(Channel.GROUP, number) for number in range(1, 101)]


async def test_channels_are_told_apart(node: Node) -> None:
    delivery, heard = await node("n1")
    await delivery.publish(Channel.CONTROL, Blob(publisher="p", number=1))
    await delivery.publish(Channel.GROUP, Blob(publisher="p", number=2))
    await heard.until(lambda: len(heard.blobs) == 2)
    assert heard.blobs == [(Channel.CONTROL, 1), (Channel.GROUP, 2)]


async def test_answers_reach_their_node_and_no_other(node: Node) -> None:
    delivery, heard = await node("n1")
    batches = {
        "n1": [Answers(boot_id="b", answers=[Answer(request_id=1), Answer(request_id=2)]), Answers(boot_id="c")],
        "elsewhere": [Answers(boot_id="b", answers=[Answer(request_id=3)])],
    }
    await delivery.answer(batches)
    await delivery.publish(Channel.GROUP, Blob(publisher="p", number=1))
    await heard.until(lambda: len(heard.blobs) == 1)
    assert heard.answers == [1, 2]


async def test_answers_travel_with_a_blob_and_behind_it(node: Node) -> None:
    delivery, heard = await node("n1")
    for number in range(1, 51):
        answers = {"n1": [Answers(boot_id="b", answers=[Answer(request_id=number)])], "elsewhere": [Answers()]}
        await delivery.publish(Channel.GROUP, Blob(publisher="p", number=number), answers)
    await heard.until(lambda: len(heard.answers) == 50)
    assert heard.order == [kind for _ in range(50) for kind in ("blob", "answers")]


async def test_without_a_receiver_publishing_still_works(supervisor: Supervisor, redis_url: str) -> None:
    for delivery in (MemoryDelivery(), redis_pubsub(redis_url, supervisor)):
        await delivery.start("n1", None, ())
        await delivery.publish(Channel.GROUP, Blob(publisher="p", number=1))
        await delivery.stop()


async def test_a_cut_subscription_comes_back_and_says_so(supervisor: Supervisor, redis_url: str) -> None:
    delivery, heard = redis_pubsub(redis_url, supervisor), Heard()
    await delivery.start("n1", heard, tuple(Channel))
    admin = connect(redis_url, pool_max=1, connect_timeout_s=1, command_timeout_s=1)
    assert await admin.client_kill_filter(_type="pubsub") == 1
    await heard.until(lambda: heard.reconnects == 1)
    await delivery.publish(Channel.GROUP, Blob(publisher="p", number=7))
    await heard.until(lambda: bool(heard.blobs))
    assert heard.blobs == [(Channel.GROUP, 7)]
    await admin.aclose()
    await delivery.stop()


async def test_what_is_not_a_blob_is_dropped_and_the_subscription_lives(supervisor: Supervisor, redis_url: str) -> None:
    delivery, heard = redis_pubsub(redis_url, supervisor), Heard()
    await delivery.start("n1", heard, tuple(Channel))
    admin = connect(redis_url, pool_max=1, connect_timeout_s=1, command_timeout_s=1)
    await admin.publish("Push:Group", b"\xff\xff not protobuf")
    await delivery.publish(Channel.GROUP, Blob(publisher="p", number=1))
    await heard.until(lambda: bool(heard.blobs))
    assert heard.reconnects == 0
    await admin.aclose()
    await delivery.stop()
