"""The doctor put together."""

from collections.abc import Collection

from app.brokers.base import Broker
from app.consumer.proposer import Proposer
from app.doctor.base import Check, Source
from app.doctor.caches import HotCaches
from app.doctor.examine import Doctor
from app.doctor.groups import GroupRows, Members, Owners, ReadMarks, UnknownGroups
from app.doctor.numbers import Counters, Heads, Numbers
from app.doctor.queues import Backlog, DeadLetters
from app.doctor.search import SearchIndex, SearchProgress
from app.doctor.tables import MessageFields, Partitions, Senders, Sessions, UniqueIds, Workers
from app.doctor.unread import Unread
from app.metrics import Metrics
from app.modules.groups.repository import GroupRepository
from app.modules.messages.hot import HotCache
from app.modules.messages.repository import MessageRepository
from app.sections import Messages
from app.storage.postgres import Postgres
from app.storage.redis import Redis

CHECKS = (
    "group_rows",
    "unknown_groups",
    "heads",
    "numbers",
    "counters",
    "hot_caches",
    "owners",
    "members",
    "read_marks",
    "unread",
    "messages",
    "senders",
    "search_progress",
    "search_index",
    "unique_ids",
    "workers",
    "sessions",
    "partitions",
    "dead_letters",
    "backlog",
)
"""Their names, in the order in which they run: a cause before its consequences."""


def build_doctor(
    postgres: Postgres,
    redis: Redis,
    broker: Broker,
    messages: Messages,
    *,
    only: Collection[str] = (),
    repair: bool,
    settle_s: float,
    statement_s: float,
    lock_s: float,
    unread_max: int,
) -> Doctor:
    """A doctor for one examination; `only` names the checks to do, none means all. Does no I/O."""
    source = Source(postgres, statement_s=statement_s, lock_s=lock_s, settle_s=settle_s)
    proposer = Proposer(redis, Metrics())
    hot = HotCache(redis, messages.hot_size, messages.hot_ttl_s)
    checks: list[Check] = [
        GroupRows(source),
        UnknownGroups(source),
        Heads(source),
        Numbers(source),
        Counters(source, proposer),
        HotCaches(source, hot, MessageRepository(postgres)),
        Owners(source),
        Members(source),
        ReadMarks(source),
        Unread(source, GroupRepository(postgres), members_max=unread_max),
        MessageFields(source),
        Senders(source),
        SearchProgress(source),
        SearchIndex(source),
        UniqueIds(source),
        Workers(source),
        Sessions(source),
        Partitions(source, broker.name, broker.partitions, durable=broker.durable),
        DeadLetters(source),
        Backlog(source, broker, settle_s=settle_s),
    ]
    return Doctor(source, [check for check in checks if check.name in only or not only], repair=repair)
