"""The way down that the settings ask for."""

from collections.abc import Callable

from app.delivery.base import Delivery
from app.delivery.interest import Interest, LocalGroups
from app.delivery.memory import MemoryDelivery
from app.delivery.redis_pubsub import RedisPubSubDelivery
from app.delivery.routes import GroupRoutes
from app.lifecycle import Readiness, Supervisor
from app.metrics import Metrics
from app.settings import Settings
from app.storage.redis import Redis


def delivery_of(
    settings: Settings,
    connect: Callable[[int], Redis],
    supervisor: Supervisor,
    readiness: Readiness,
    metrics: Metrics,
) -> Delivery:
    """The adapter, without I/O; `connect` makes a client of its own with so many connections."""
    if settings.delivery.kind == "memory":
        return MemoryDelivery()
    return RedisPubSubDelivery(
        connect(1),
        connect(1),
        supervisor,
        readiness,
        metrics,
        reconnect_max_s=settings.delivery.reconnect_max_s,
        timeout_s=settings.redis.command_timeout_s,
    )


def routes_of(settings: Settings, redis: Redis, metrics: Metrics) -> GroupRoutes | None:
    """How a publisher finds the gateways that have a group; None: everything goes to all."""
    return GroupRoutes(redis, metrics) if _routed(settings) else None


def interest_of(settings: Settings, redis: Redis, node_id: str, groups: LocalGroups) -> Interest | None:
    """How a gateway tells which groups it has; None: it does not."""
    if not _routed(settings):
        return None
    o = settings.delivery
    return Interest(
        redis,
        node_id,
        groups,
        beat_s=o.interest_beat_s,
        marker_lease_s=o.interest_lease_s,
        linger_s=o.interest_linger_s,
    )


def _routed(settings: Settings) -> bool:
    return settings.delivery.group == "routed"
