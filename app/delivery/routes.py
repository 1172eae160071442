"""Where a publication goes with `delivery.group = routed`: the gateways that have the group, as long as all of them tell.

Redis itself says which gateways listen (`PUBSUB CHANNELS`), so one that does not tell (because of its settings, or because it has not yet
written its groups to a Redis that was emptied) is noticed without being known: then everything goes to all.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.delivery.base import DeliveryUnavailable
from app.delivery.interest import INCARNATION, KEY, ServerClock, group_key
from app.delivery.redis_pubsub import push_channel
from app.metrics import Metrics
from app.storage.redis import ERRORS, Redis

PATTERN = push_channel("*")
"""The channels of single gateways."""


@dataclass(frozen=True, slots=True)
class Route:
    """Who gets what: node ids by group, and how many gateways there are."""

    by_group: Mapping[int, Sequence[str]]
    gateways: int


class GroupRoutes:
    """Reads the entries that gateways keep (`interest.py`). One pipeline for each publication, read after the commit."""

    def __init__(self, redis: Redis, metrics: Metrics) -> None:
        self._redis = redis
        self._metrics = metrics
        self._time = ServerClock()
        self._incarnation: bytes | None = None

    async def read(self, group_ids: Collection[int]) -> Route | None:
        """None: to all. Raises DeliveryUnavailable.

        What was committed before this is called reaches every gateway that held the group before it read it: see `Interest.hold`.
        """
        groups, known, now_ms = list(group_ids), self._incarnation, self._time.now_ms()
        commands: list[tuple[Any, ...]] = [
            ("ZRANGEBYSCORE", group_key(group_id), f"({now_ms}", "+inf") for group_id in groups
        ]
        # The marker after the entries: if Redis is emptied meanwhile, the marker is missing too.
        commands += [("PUBSUB", "CHANNELS", PATTERN), ("HGETALL", KEY), ("TIME",)]
        try:
            *entries, listening, marked, time = await self._redis.run(commands)
        except ERRORS as error:
            raise DeliveryUnavailable(f"Redis: {error}") from error
        self._time.heard(int(time[0]) * 1000 + int(time[1]) / 1000)
        now_ms = self._time.now_ms()
        fields = dict(zip(marked[::2], marked[1::2], strict=True))
        self._incarnation = fields.pop(INCARNATION, None)
        telling = {node.decode() for node, until_ms in fields.items() if until_ms.isdigit() and int(until_ms) > now_ms}
        way = "nodes"
        if self._incarnation != known:
            # What was read before the marker may have been of the Redis that was.
            way = "all_new"
        elif not {push_channel(node).encode() for node in telling}.issuperset(listening):
            way = "all_untold"
        self._metrics.routes.labels(way).inc()
        if way != "nodes":
            return None
        by_group = {
            group_id: [node for each in found if (node := each.decode()) in telling]
            for group_id, found in zip(groups, entries, strict=True)
        }
        return Route(by_group, len(telling))
