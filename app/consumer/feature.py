"""The consumer put together."""

from app.brokers.base import Broker
from app.consumer.dead_letter_table import DeadLetterTable
from app.consumer.dead_letters import DeadLetters
from app.consumer.fence import Fence
from app.consumer.loop import Consumer
from app.consumer.proposer import Proposer
from app.consumer.publish import BatchPublisher
from app.consumer.replay import Replayer
from app.consumer.store import BatchStore, Gate, Groups, Numbers, Stamper, WordFilter
from app.delivery.base import Delivery
from app.delivery.publisher import Publisher
from app.lifecycle import CrashPoint, Readiness
from app.metrics import Metrics
from app.modules.messages.feature import MessagesFeature
from app.sections import Consumer as ConsumerOptions
from app.storage.postgres import Postgres
from app.storage.redis import Redis


def build_consumer(
    postgres: Postgres,
    redis: Redis,
    broker: Broker,
    delivery: Delivery,
    publisher: Publisher,
    messages: MessagesFeature,
    groups: Groups,
    words: WordFilter,
    ids: Stamper,
    readiness: Readiness,
    crash: CrashPoint,
    metrics: Metrics,
    options: ConsumerOptions,
    *,
    owner: str,
) -> Consumer:
    """`owner` stands in `partition_owner`. Does no I/O."""
    fence = Fence(postgres, broker.name, owner)
    proposer = Proposer(redis, metrics)
    store = BatchStore(postgres, messages.repository, groups, proposer, words, ids, fence, crash, metrics)
    publish = BatchPublisher(messages.hot, proposer, publisher, delivery, crash, metrics)
    return Consumer(
        broker,
        fence,
        store,
        publish,
        DeadLetters(postgres, fence),
        readiness,
        crash,
        metrics,
        batch_max=options.batch_max,
        pace_ms=options.pace_ms,
        backoff_min_s=options.backoff_min_s,
        backoff_max_s=options.backoff_max_s,
    )


def build_replayer(
    postgres: Postgres,
    redis: Redis,
    messages: MessagesFeature,
    groups: Groups,
    words: WordFilter,
    ids: Stamper,
    metrics: Metrics,
) -> Replayer:
    """For the command `deadletters replay`. Does no I/O."""

    def store(gate: Gate, numbers: Numbers) -> BatchStore:
        return BatchStore(postgres, messages.repository, groups, numbers, words, ids, gate, CrashPoint(""), metrics)

    return Replayer(DeadLetterTable(postgres), store, messages.hot, Proposer(redis, metrics))
