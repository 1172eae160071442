"""Which broker the settings name."""

from collections.abc import Callable

from app.brokers.base import Broker
from app.brokers.memory import MemoryBroker
from app.brokers.redis_streams import RedisStreamsBroker
from app.lifecycle import Readiness, Supervisor
from app.settings import Settings
from app.storage.redis import Redis

LEAST_REPLICAS = 2
"""Of what is acknowledged in production: then it survives a machine."""


def broker_of(
    settings: Settings,
    supervisor: Supervisor,
    readiness: Readiness,
    connect_redis: Callable[[int, str], Redis],
    *,
    owner: str,
) -> Broker:
    """An adapter, not started. `connect_redis` makes a client of so many connections to a URL (empty: that of the caches)."""
    o = settings.broker
    if o.kind == "redis_streams":
        streams = settings.redis_streams
        return RedisStreamsBroker(
            connect_redis(streams.pool_max, streams.url.get_secret_value()),
            supervisor,
            readiness,
            o.partitions,
            owner,
            max_records=streams.max_records,
            append_timeout_s=o.append_timeout_s,
            lease_s=streams.lease_s,
            renew_s=streams.renew_s,
            timeout_s=settings.redis.command_timeout_s,
        )
    if o.kind == "kafka":
        from app.brokers.kafka import KafkaBroker  # its client takes a third of a second to import

        return KafkaBroker(
            settings.kafka,
            supervisor,
            readiness,
            partitions=o.partitions,
            append_timeout_s=o.append_timeout_s,
            least_replicas=LEAST_REPLICAS if settings.env == "production" else 1,
        )
    return MemoryBroker(o.partitions, o.memory_max_records)
