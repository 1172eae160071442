"""The messages put together: what other rooms use of them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from app.brokers.base import Broker
from app.metrics import Metrics
from app.modules.groups.feature import GroupsFeature
from app.modules.messages.handlers import MessageHandlers
from app.modules.messages.hot import HotCache
from app.modules.messages.producer import MessageProducer, SendLimiter
from app.modules.messages.read_marks import Moved, ReadMarks
from app.modules.messages.repository import MessageRepository
from app.modules.messages.service import MessageService, Names
from app.settings import Settings
from app.storage.postgres import Postgres
from app.storage.redis import Redis


@dataclass(frozen=True, slots=True)
class MessagesFeature:
    """`producer` takes sends in; `repository` and `hot` are for the consumer, `handlers` for HTTP."""

    repository: MessageRepository
    hot: HotCache
    service: MessageService
    producer: MessageProducer
    read_marks: ReadMarks
    handlers: MessageHandlers


def messages_feature(
    postgres: Postgres,
    redis: Redis,
    broker: Broker,
    groups: GroupsFeature,
    accounts: Names,
    limiter: SendLimiter,
    on_read: Callable[[Sequence[Moved]], Awaitable[None]],
    metrics: Metrics,
    settings: Settings,
    *,
    node_id: str,
    boot_id: str,
) -> MessagesFeature:
    """Build everything from its parts; does no I/O."""
    options, bounds = settings.messages, settings.producer
    repository = MessageRepository(postgres)
    hot = HotCache(redis, options.hot_size, options.hot_ttl_s)
    service = MessageService(
        repository,
        hot,
        groups.gate,
        accounts,
        page_max=options.history_page_max,
        sync_items_max=options.sync_items_max,
        resume_items_max=options.resume_items_max,
        resume_bytes_max=options.resume_bytes_max,
    )
    producer = MessageProducer(
        broker,
        limiter,
        metrics,
        node_id=node_id,
        boot_id=boot_id,
        per_connection=bounds.per_connection,
        per_partition=bounds.per_partition,
        total=bounds.total,
        pace_ms=bounds.pace_ms,
        batch_max=bounds.batch_max,
        send_timeout_s=options.send_timeout_s,
    )
    read_marks = ReadMarks(
        repository,
        on_read,
        metrics,
        flush_s=options.read_flush_s,
        pending_max=options.read_pending_max,
        batch_max=bounds.batch_max,
    )
    handlers = MessageHandlers(service, producer, read_marks, groups.gate, max_code_points=options.max_code_points)
    return MessagesFeature(repository, hot, service, producer, read_marks, handlers)
