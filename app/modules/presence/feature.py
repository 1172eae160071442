"""Presence put together: what other rooms use of it."""

from dataclasses import dataclass

from app.delivery.publisher import Publisher
from app.metrics import Metrics
from app.modules.presence.announcer import Announcer
from app.modules.presence.handlers import PresenceHandlers
from app.modules.presence.models import Gate, Members
from app.modules.presence.online import GroupCounts, OnlineUsers
from app.modules.presence.repository import LastSeenRepository
from app.modules.presence.routes import UserRoutes
from app.modules.presence.service import PresenceService
from app.sections import Presence
from app.storage.postgres import Postgres
from app.storage.redis import Redis

COUNTS_PER_LIFE = 3
"""A count is written so many times before it ends: one lost write changes nothing."""


@dataclass(frozen=True, slots=True)
class PresenceFeature:
    """`routes` are kept by every gateway; the others are None where nobody may know who is online. `handlers` are for HTTP."""

    routes: UserRoutes
    announcer: Announcer | None
    counts: GroupCounts
    members: Members
    handlers: list[object]


def presence_feature(
    postgres: Postgres,
    redis: Redis,
    publisher: Publisher,
    gate: Gate,
    members: Members,
    metrics: Metrics,
    options: Presence,
    *,
    node_id: str,
    route_ttl_s: float,
) -> PresenceFeature:
    """Build everything from its parts; does no I/O."""
    routes = UserRoutes(redis, node_id, ttl_s=route_ttl_s)
    counts = GroupCounts(redis, node_id, ttl_s=COUNTS_PER_LIFE * options.count_s)
    if not options.enabled:
        return PresenceFeature(routes, None, counts, members, [])
    online = OnlineUsers(redis, ttl_s=route_ttl_s, grace_s=options.grace_s)
    last_seen = LastSeenRepository(postgres)
    small = options.small_group_members
    announcer = Announcer(
        online,
        routes,
        members,
        last_seen,
        publisher,
        metrics,
        small_group_members=small,
        sweep_s=options.sweep_s,
        per_second=options.announced_per_second,
    )
    service = PresenceService(gate, members, online, counts, last_seen, small_group_members=small)
    return PresenceFeature(routes, announcer, counts, members, [PresenceHandlers(service)])
