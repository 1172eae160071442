"""The contract of app/delivery/base.py, for every adapter. A new adapter is one function in `ADAPTERS`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from app.delivery.base import Channel, Delivery
from app.delivery.memory import MemoryDelivery
from app.delivery.redis_pubsub import RedisPubSubDelivery
from app.lifecycle import Readiness, Supervisor
from app.metrics import Metrics
from app.protocol.magpie_pb2 import Answer, Answers, Blob
from app.storage.redis import connect
from tests.contract.pushing import Caller, Gateway, Heard, serving


def redis_pubsub(url: str, supervisor: Supervisor) -> Delivery:
    publisher = connect(url, pool_max=1, connect_timeout_s=1, command_timeout_s=1)
    subscriber = connect(url, pool_max=1, connect_timeout_s=1, command_timeout_s=1)
    return RedisPubSubDelivery(
        publisher, subscriber, supervisor, Readiness(), Metrics(), reconnect_max_s=0.2, timeout_s=1
    )


ADAPTERS = ("memory", "redis_pubsub", "grpc")
Node = Callable[[str], Awaitable[tuple[Delivery, Heard]]]


@pytest.fixture(params=ADAPTERS)
async def node(request: pytest.FixtureRequest, supervisor: Supervisor, redis_url: str) -> AsyncIterator[Node]:
    """Starts a node; with the memory adapter every test has only one."""
    async with AsyncExitStack() as stack:

        async def start(node_id: str) -> tuple[Delivery, Heard]:
            if request.param == "grpc":
                return await called(node_id, stack)
            delivery = MemoryDelivery() if request.param == "memory" else redis_pubsub(redis_url, supervisor)
            return delivery, await started(delivery, node_id, Heard(), stack)

        async def called(node_id: str, stack: AsyncExitStack) -> tuple[Delivery, Heard]:
            """It answers itself, as in role = all."""
            gateway = await stack.enter_async_context(serving(Gateway(node_id)))
            caller = Caller(supervisor, behind=redis_pubsub(redis_url, supervisor))
            caller.register(gateway.node())
            await started(caller.delivery, node_id, gateway.heard, stack)
            await caller.until_reached(node_id)
            return caller.delivery, gateway.heard

        yield start


async def started(delivery: Delivery, node_id: str, heard: Heard, stack: AsyncExitStack) -> Heard:
    await delivery.start(node_id, heard, tuple(Channel))
    stack.push_async_callback(delivery.stop)
    return heard


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


async def test_answers_travel_with_a_blob(node: Node) -> None:
    delivery, heard = await node("n1")
    for number in range(1, 51):
        answers = {"n1": [Answers(boot_id="b", answers=[Answer(request_id=number)])], "elsewhere": [Answers()]}
        await delivery.publish(Channel.GROUP, Blob(publisher="p", number=number), answers)
    await heard.until(lambda: len(heard.answers) == 50 == len(heard.blobs))
    assert heard.answers == [number for _, number in heard.blobs] == list(range(1, 51))


async def test_blobs_for_a_node_reach_it_in_order_and_no_other(node: Node) -> None:
    delivery, heard = await node("n1")
    for number in range(1, 100, 2):
        mine = [Blob(publisher="p", number=number), Blob(publisher="p", number=number + 1)]
        answers = {"n1": [Answers(boot_id="b", answers=[Answer(request_id=number)])]}
        await delivery.push({"n1": mine, "elsewhere": [Blob(publisher="p", number=1000)]}, answers)
    await heard.until(lambda: len(heard.blobs) == 100 and len(heard.answers) == 50)
    assert heard.blobs == [(Channel.NODE, number) for number in range(1, 101)]
    assert heard.answers == list(range(1, 100, 2))


async def test_answers_go_down_where_no_node_gets_a_blob(node: Node) -> None:
    delivery, heard = await node("n1")
    await delivery.push({}, {"n1": [Answers(boot_id="b", answers=[Answer(request_id=1)])]})
    await heard.until(lambda: heard.answers == [1])
    assert heard.blobs == []


async def test_without_a_receiver_publishing_still_works(supervisor: Supervisor, redis_url: str) -> None:
    for delivery in (MemoryDelivery(), redis_pubsub(redis_url, supervisor)):
        await delivery.start("n1", None, ())
        await delivery.publish(Channel.GROUP, Blob(publisher="p", number=1))
        await delivery.push({"n1": [Blob(publisher="p", number=1)]}, {})
        await delivery.stop()


async def test_a_cut_subscription_comes_back_and_says_so(supervisor: Supervisor, redis_url: str) -> None:
    delivery, heard = redis_pubsub(redis_url, supervisor), Heard()
    await delivery.start("n1", heard, tuple(Channel))
    admin = connect(redis_url, pool_max=1, connect_timeout_s=1, command_timeout_s=1)
    assert await admin.client_kill_filter(_type="pubsub") == 1
    await heard.until(lambda: heard.reconnects == 1)
    assert heard.cuts == 1
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
