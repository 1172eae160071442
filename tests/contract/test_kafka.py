"""What only Kafka can do to us: a cluster that is killed, frozen, has another topic, or fails our producer."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from structlog.testing import capture_logs

from app.brokers.base import Broker, Record, Subscription
from app.brokers.kafka import KafkaBroker
from app.brokers.kafka_reader import KafkaSubscription
from app.brokers.kinds import broker_of
from app.errors import AppError, Busy, ConfigError, Internal
from app.lifecycle import Readiness, until_there
from app.sections import Kafka
from app.settings import Environment, load
from app.storage.redis import Redis
from local.kafka import KafkaServer
from tests.contract.logs import PARTITIONS, Ownership, kafka_brokers, kafka_options, positions, until, values
from tests.services import kafka

# A JVM starts in two seconds, or in twenty where others use the cores; a test may wait for two of them.
pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.fault, pytest.mark.timeout(150)]

APPEND_TIMEOUT_S = 1.0
SLACK_S = 20.0
"""A busy machine is no defect; what would hang hangs much longer."""


@pytest.fixture
async def server() -> AsyncIterator[KafkaServer]:
    server = await kafka.running()
    yield server
    # Whatever the test did, the brokers behind it are stopped on a cluster that answers.
    await server.ensure()


@pytest.fixture
async def options(server: KafkaServer) -> Kafka:
    return await kafka_options()


@pytest.fixture
async def broker(options: Kafka) -> AsyncIterator[KafkaBroker]:
    async with kafka_brokers(options, APPEND_TIMEOUT_S) as connect:
        yield await connect()


@pytest.fixture
def ownership() -> Ownership:
    return Ownership()


@pytest.fixture
async def subscription(broker: KafkaBroker, ownership: Ownership) -> AsyncIterator[KafkaSubscription]:
    subscription = await broker.subscribe(ownership)
    assert isinstance(subscription, KafkaSubscription)
    yield subscription
    await subscription.close()


async def until_appended(broker: Broker, partition: int, appended: Sequence[bytes]) -> None:
    """Try until the log has it, perhaps more than once."""
    async with asyncio.timeout(40):
        while True:
            try:
                await broker.append(partition, appended)
            except (Busy, Internal):
                await asyncio.sleep(0.05)
            else:
                return


async def take_until(subscription: Subscription, last: bytes) -> list[Record]:
    """Everything up to a value, whatever may be away meanwhile."""
    records: list[Record] = []
    async with asyncio.timeout(40):
        while last not in values(records):
            try:
                records += await subscription.fetch(500)
            except Busy:
                await asyncio.sleep(0.05)
    return records


async def test_a_killed_broker_loses_nothing_acknowledged_and_keeps_the_order(
    broker: KafkaBroker, subscription: KafkaSubscription, server: KafkaServer
) -> None:
    acknowledged: list[int] = []
    refused: list[AppError] = []

    async def send() -> None:
        for number in range(100_000):
            try:
                await broker.append(0, [b"%d" % number])
                acknowledged.append(number)
            except (Busy, Internal) as error:
                refused.append(error)
            await asyncio.sleep(0.01)

    sending = asyncio.ensure_future(send())
    async with asyncio.timeout(90):
        while len(acknowledged) < 20:
            await asyncio.sleep(0.01)
        server.kill()
        while not any(error.outcome == "none" for error in refused):
            await asyncio.sleep(0.01)
        assert sum(error.outcome == "unknown" for error in refused) <= 2, "then it is known to be away"
        before = len(acknowledged)
        await server.start()
        while len(acknowledged) < before + 20:
            await asyncio.sleep(0.01)
    sending.cancel()
    await asyncio.wait({sending})
    await until_appended(broker, 0, [b"last"])
    read = [int(value) for value in values(await take_until(subscription, b"last")) if value != b"last"]
    assert read == sorted(set(read)), "in order, and each once"
    assert set(acknowledged) <= set(read)
    assert all(error.retry_after_ms for error in refused if error.outcome == "none")


async def test_a_frozen_broker_ends_appends_in_time_and_holds_little(
    broker: KafkaBroker, subscription: KafkaSubscription, server: KafkaServer
) -> None:
    for partition in range(PARTITIONS):
        await until_appended(broker, partition, [b"before"])
    server.freeze()
    started = time.monotonic()
    many = await asyncio.gather(
        *(broker.append(number % PARTITIONS, [b"%d" % number * 100]) for number in range(2000)), return_exceptions=True
    )
    assert time.monotonic() - started < APPEND_TIMEOUT_S + SLACK_S
    unknown = [number for number, error in enumerate(many) if isinstance(error, Internal)]
    assert unknown == list(range(PARTITIONS)), "one of each partition; all others waited behind it"
    assert all(isinstance(error, Busy) for number, error in enumerate(many) if number not in unknown)
    refused = asyncio.ensure_future(broker.append(0, [b"refused"]))
    await asyncio.sleep(0)
    assert refused.done() and isinstance(refused.exception(), Busy), "it is known to be away"
    async with asyncio.timeout(10):
        with pytest.raises(Busy):
            await subscription.fetch(1) and await subscription.fetch(1) and await subscription.fetch(500)
    await until(lambda: broker.cluster._readiness.reasons == {"log": "Kafka does not answer"})
    server.thaw()
    await until_appended(broker, 0, [b"after"])
    await until(lambda: not broker.cluster._readiness.reasons)
    read = values(await take_until(subscription, b"after"), 0)
    assert read[:3] == [b"before", b"0" * 100, b"after"], "what was under way when its time was over is not overtaken"


async def test_everything_ends_while_the_broker_is_frozen(server: KafkaServer, ownership: Ownership) -> None:
    options = await kafka_options(request_timeout_s=1)
    async with kafka_brokers(options, APPEND_TIMEOUT_S) as connect:
        broker = await connect()
        subscription = await broker.subscribe(ownership)
        await broker.append(0, [b"x"])
        await subscription.fetch(1)
        server.freeze()
        started = time.monotonic()
        ended = await asyncio.gather(
            broker.append(0, [b"y"]),
            subscription.commit({0: 0}),
            broker.backlog(),
            broker.subscribe(Ownership()),
            return_exceptions=True,
        )
        assert [type(error) for error in ended] == [Internal, Busy, Busy, Busy]
        await subscription.close()
        assert not ownership.owned
        await broker.stop()
        assert time.monotonic() - started < 8 * options.request_timeout_s + SLACK_S


@pytest.mark.parametrize("failure", ["too large", "numbers"])
async def test_a_producer_that_failed_is_replaced(
    broker: KafkaBroker, subscription: KafkaSubscription, failure: str
) -> None:
    await broker.append(1, [b"1"])
    first = broker.appender._writer
    assert first is not None
    if failure == "numbers":
        # As after the loss of the server's memory of this producer.
        first._txn_manager.increment_sequence_number(TopicPartition(broker._options.topic, 1), 7)
    with pytest.raises(Internal):
        await broker.append(1, [b"x" * 2_000_000 if failure == "too large" else b"x"])
    later = [until_appended(broker, 1, [b"%d" % number]) for number in (2,)]
    await asyncio.gather(*later, until_appended(broker, 2, [b"other"]))
    await broker.append(1, [b"3"])
    assert broker.appender._writer is not first
    assert values(await take_until(subscription, b"3"), 1) == [b"1", b"2", b"3"]
    async with asyncio.timeout(20):
        while broker.appender._retired:
            await asyncio.sleep(0.02)


async def test_an_append_that_is_cancelled_is_not_overtaken(
    broker: KafkaBroker, subscription: KafkaSubscription
) -> None:
    for number in range(20):
        cancelled = asyncio.ensure_future(broker.append(0, [b"%d-a" % number]))
        await asyncio.sleep(0.0005 * (number % 5))
        cancelled.cancel()
        await broker.append(0, [b"%d-b" % number])
    read = values(await take_until(subscription, b"19-b"))
    assert [value for value in read if value.endswith(b"b")] == [b"%d-b" % number for number in range(20)]
    order = [(int(value.split(b"-")[0]), value[-1:]) for value in read]
    assert order == sorted(set(order))


async def test_an_append_may_be_larger_than_a_batch(
    broker: KafkaBroker, subscription: KafkaSubscription, options: Kafka
) -> None:
    many = [b"%07d" % number + b"x" * 1000 for number in range(3 * options.max_batch_bytes // 1000)]
    await until_appended(broker, 3, many)
    await broker.append(3, [b"last"])
    assert values(await take_until(subscription, b"last")) == [*many, b"last"]


async def test_a_reader_that_stands_still_joins_again(server: KafkaServer, ownership: Ownership) -> None:
    async with kafka_brokers(await kafka_options(stall_s=1)) as connect:
        broker = await connect()
        subscription = await broker.subscribe(ownership)
        assert isinstance(subscription, KafkaSubscription)
        await broker.append(0, [b"1"])
        await subscription.commit(positions(await take_until(subscription, b"1")))
        assert subscription.member is not None
        # aiokafka's own defect is rare; a fetcher that ended looks the same from here.
        await subscription.member._fetcher.close()
        await broker.append(0, [b"2"])
        assert values(await take_until(subscription, b"2")) == [b"2"]
        assert subscription.rejoins > 0
        assert ownership.owned == set(range(PARTITIONS))
        await subscription.close()


async def test_a_batch_that_takes_longer_than_a_rebalance_may_goes_to_the_next_owner(
    broker: KafkaBroker, subscription: KafkaSubscription, ownership: Ownership
) -> None:
    for partition in range(PARTITIONS):
        await broker.append(partition, [b"%d" % partition])
    records: list[Record] = []
    while len(records) < PARTITIONS:
        records += await subscription.fetch(500)
    second = await broker.subscribe(Ownership())
    again: list[Record] = []

    async def read(reader: Subscription) -> None:
        while True:
            again.extend(await reader.fetch(500))

    readers = [asyncio.ensure_future(read(second))]
    async with asyncio.timeout(20):
        while ownership.owned:
            await asyncio.sleep(0.02)
    # Half the group is ours again, but nothing was handed out since: the late commit is for another time.
    await subscription.commit(positions(records))
    readers.append(asyncio.ensure_future(read(subscription)))
    async with asyncio.timeout(20):
        while len(again) < PARTITIONS:
            await asyncio.sleep(0.02)
    assert sorted(values(again)) == sorted(values(records))
    assert sum((await broker.backlog()).values()) == PARTITIONS
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    await second.close()


class Asked(Ownership):
    """Takes its time to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def on_assigned(self, partitions: Sequence[int], fresh: Collection[int]) -> None:
        self.asked.set()
        await self.answers.wait()
        await super().on_assigned(partitions, fresh)


async def test_a_late_commit_lets_no_rebalance_pass_while_the_listener_is_told(broker: KafkaBroker) -> None:
    ownership = Asked()
    subscription = await broker.subscribe(ownership)
    assert isinstance(subscription, KafkaSubscription)
    fetch = asyncio.ensure_future(subscription.fetch(1))
    async with asyncio.timeout(20):
        await ownership.asked.wait()
        revoking = asyncio.ensure_future(subscription.on_revoking())
        await subscription.commit({0: 0})
        await asyncio.wait({revoking}, timeout=0.2)
        assert not revoking.done()
        ownership.answers.set()
        await revoking
    fetch.cancel()
    await asyncio.wait({fetch})
    await subscription.close()


async def test_a_topic_that_was_made_again_is_fresh(options: Kafka, server: KafkaServer) -> None:
    async with kafka_brokers(options) as connect:
        broker = await connect()
        subscription = await broker.subscribe(Ownership())
        await broker.append(0, [b"1"])
        await subscription.commit(positions(await take_until(subscription, b"1")))
        await subscription.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=server.address)
    await admin.start()
    await admin.delete_topics([options.topic])
    async with asyncio.timeout(20):
        while options.topic in await admin.list_topics():
            await asyncio.sleep(0.05)
    await admin.close()
    async with kafka_brokers(options) as connect:
        broker, ownership = await connect(), Ownership()
        subscription = await broker.subscribe(ownership)
        await broker.append(0, [b"2"])
        assert values(await take_until(subscription, b"2")) == [b"2"]
        assert ownership.fresh == set(range(PARTITIONS))
        await subscription.close()


async def test_a_topic_of_another_size_is_refused(options: Kafka, broker: KafkaBroker) -> None:
    other = KafkaBroker(options, broker._supervisor, Readiness(), partitions=PARTITIONS + 1, append_timeout_s=1)
    with pytest.raises(ConfigError, match=r"set broker.partitions to 4"):
        await other.start()


async def test_a_missing_topic_is_made_only_when_allowed(server: KafkaServer) -> None:
    async with kafka_brokers(await kafka_options(create_topic=False)) as connect:
        with pytest.raises(ConfigError, match=r"kafka.create_topic = true"):
            await connect()
    async with kafka_brokers(await kafka_options(replication=3)) as connect:
        with pytest.raises(ConfigError, match=r"kafka.replication"):
            await connect()


def no_redis(*_: object) -> Redis:
    raise AssertionError("Kafka needs none")


async def test_a_topic_with_few_replicas_is_said_at_the_start(options: Kafka, broker: KafkaBroker) -> None:
    async def said(env: Environment = "dev", **changed: int) -> list[tuple[int, int]]:
        settings = load()
        kafka_here = {
            "env": env,
            "broker": settings.broker.model_copy(update={"kind": "kafka", "partitions": PARTITIONS}),
            "kafka": options.model_copy(update=changed),
        }
        other = broker_of(
            settings.model_copy(update=kafka_here), broker._supervisor, Readiness(), no_redis, owner="test"
        )
        with capture_logs() as logs:
            await until_there(other.start, "Kafka", Readiness(), wait_s=30)
        await other.stop()
        found = [each for each in logs if each["event"] == "kafka_topic_has_few_replicas"]
        return [(each["replicas"], each["min_insync_replicas"]) for each in found]

    assert await said() == []
    assert await said("production") == [(1, 1)]
    assert await said(replication=3, min_insync_replicas=2) == [(1, 1)]
    assert await said(min_insync_replicas=2) == [(1, 1)]


async def test_a_cluster_that_is_away_at_the_start_is_busy(options: Kafka, broker: KafkaBroker) -> None:
    nowhere = options.model_copy(update={"bootstrap_servers": ("127.0.0.1:1",)})
    other = KafkaBroker(nowhere, broker._supervisor, Readiness(), partitions=PARTITIONS, append_timeout_s=1)
    with pytest.raises(Busy):
        await other.start()


async def test_a_fetch_brings_what_came_after_what_was_read_ahead(
    broker: KafkaBroker, subscription: KafkaSubscription
) -> None:
    await broker.append(0, [b"first"])
    await subscription.fetch(500)
    for number in range(20):
        ahead, later = f"{number} ahead".encode(), f"{number} later".encode()
        await broker.append(0, [ahead])
        await asyncio.sleep(0.2)
        await broker.append(0, [later])
        records = await subscription.fetch(500)
        if values(records) == [ahead, later]:
            return
        # A busy machine answers later than the fetch waits.
        assert values(records + await subscription.fetch(500)) == [ahead, later]
    pytest.fail("they never came together")


async def test_who_lost_its_connections_under_way_can_still_leave(subscription: KafkaSubscription) -> None:
    assert subscription.member is not None
    client = subscription.member._client
    client._sync_task.cancel()
    client._sync_task = asyncio.Future()
    client._sync_task.set_exception(RuntimeError("unable to perform operation; the handler is closed"))
    await subscription.close()
    assert not any(connection.connected() for connection in client._conns.values())
