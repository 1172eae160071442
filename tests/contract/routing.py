"""Gateways in this process that tell which groups they have, real but for sockets and PostgreSQL, and people who check what they get."""

import asyncio
import json
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, cast
from uuid import UUID

from aiohttp import web

from app.delivery.base import Channel
from app.delivery.interest import Interest
from app.delivery.publisher import Publisher
from app.delivery.redis_pubsub import RedisPubSubDelivery
from app.delivery.routes import GroupRoutes, Route
from app.lifecycle import Readiness, Supervisor
from app.metrics import Metrics
from app.modules.groups.models import Membership, MembersNow
from app.protocol.endpoint import Principal
from app.protocol.magpie_pb2 import Blob, Event, GroupMessages
from app.storage.redis import Redis, connect
from app.web.answers import AnswerDesk
from app.web.gateway.connection import Connection
from app.web.gateway.hub import FanOut, Hub
from app.web.gateway.loader import Loader
from app.web.gateway.repair import Repairer

SLACK_S = 15.0
"""A busy machine is no defect."""
LOOK_S = 0.005
NOBODYS = 1
"""A group without members."""
_numbers = count(1)


class Store:
    """What PostgreSQL knows: members, and the committed head of each group."""

    def __init__(self) -> None:
        self.members: dict[int, set[int]] = defaultdict(set)
        self.heads: Counter[int] = Counter()
        self.version = 1

    async def memberships(self, user_ids: Sequence[int]) -> Mapping[int, Sequence[Membership]]:
        found = {
            user_id: [
                Membership(group_id, self.heads[group_id], self.version)
                for group_id, members in self.members.items()
                if user_id in members
            ]
            for user_id in user_ids
        }
        # The answer is on its way for a while.
        await asyncio.sleep(0.001)
        return found

    async def members_among(self, group_ids: Sequence[int], user_ids: Sequence[int]) -> Mapping[int, MembersNow]:
        return {
            group_id: MembersNow(
                self.members[group_id] & set(user_ids),
                self.heads[group_id],
                self.version,
                len(self.members[group_id]),
            )
            for group_id in group_ids
        }

    async def group_ids_of(self, user_ids: Sequence[int]) -> set[int]:
        return {group_id for group_id, members in self.members.items() if members & set(user_ids)}

    async def valid(self, sids: Sequence[UUID]) -> set[UUID]:
        return set(sids)


class Person:
    """A client on a wire of its own: keeps what it was sent, and knows what it must have."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.have: dict[int, int] = {}
        """Group → the last seq without a hole: what was read after hello, then what came."""
        self.snapshot: dict[int, int] = {}
        """Group → the head that the gateway read."""
        self.missed: list[tuple[int, int]] = []
        """(group, last seq) of what was not sent, only announced."""
        self.events: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        for frame in _frames(data):
            group_id = int(frame.get("group_id", 0))
            if frame["type"] == "gap":
                self.missed += [(group_id, frame["to_seq"])] * (frame["to_seq"] > self.have.get(group_id, 0))
            elif frame["type"] != "messages":
                self.events.append(frame)
            elif frame["prev_seq"] > self.have.setdefault(group_id, 0):
                self.missed.append((group_id, frame["prev_seq"]))
            else:
                self.have[group_id] = max(self.have[group_id], frame["items"][-1]["seq"])

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


def _frames(data: bytes) -> Iterable[dict[str, Any]]:
    while data:
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4]), 4
        yield json.loads(data[start : start + size])
        data = data[start + size :]


class Counting(Hub):
    """A hub that counts what reaches it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seqs: dict[int, list[int]] = defaultdict(list)
        """Group → what came, in order."""
        self.channels: Counter[Channel] = Counter()
        """Blobs with messages or small talk."""
        self.met = False
        """Whether a blob came: a new publisher makes a gateway compare all its groups."""

    def on_blob(self, channel: Channel, blob: Blob) -> None:
        self.met = True
        if NOBODYS in [*(part.group_id for part in blob.messages), *(event.group_id for event in blob.events)]:
            super().on_blob(channel, blob)
            return
        for messages in blob.messages:
            first = messages.first_seq
            self.seqs[messages.group_id] += range(first, first + len(messages.items))
        self.channels[channel] += bool(blob.messages or blob.events)
        super().on_blob(channel, blob)


class Gateway:
    """One of them; `tells` says whether it keeps entries, as with `delivery.group = routed`."""

    def __init__(self, place: "Place", name: str, *, tells: bool = True, **options: float) -> None:
        self.name = name
        self.tells = tells
        self._place = place
        self.metrics = Metrics()
        fan_out = FanOut(window_s=0, window_max_s=0, window_max_items=1000, pull_within_ms=0, large_group_members=1000)
        self.hub = Counting(AnswerDesk("boot", lambda _: None, lambda: None), lambda *_: None, self.metrics, fan_out)
        quick: dict[str, float] = {"beat_s": 0.02, "marker_lease_s": 1.0, "linger_s": 0.2} | options
        self.interest = Interest(place.redis, name, self.hub, **quick)  # type: ignore[arg-type]  # all are floats
        hold = self.interest.hold if tells else _nothing
        self.loader = Loader(place.store, place.store, hold, batch_max=500, waiting_max=10_000, linger_s=0.001)
        self.repairer = Repairer(self.hub, place.store, place.store, hold, self.metrics, cut_compare_s=3)
        self.delivery = place.pubsub(self.metrics)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._place.alive[self.name] = self
        await self.delivery.start(self.name, self.hub, tuple(Channel))
        loops = [self.repairer.run] + ([self.interest.run] if self.tells else [])
        self._tasks = [self._place.supervisor.spawn(loop(), f"{self.name} loop") for loop in loops]

    async def kill(self) -> None:
        """It is gone, and took leave of nobody."""
        self._place.alive.pop(self.name, None)
        for task in self._tasks:
            await self._place.supervisor.end(task, 1)
        await self.delivery.stop()

    async def join(self, user_id: int) -> Person:
        """A client connects, gets its hello, and reads its groups."""
        person = Person()
        person.connection = Connection(
            next(_numbers),
            cast(web.WebSocketResponse, None),
            cast(asyncio.Transport, person),
            Principal(user_id, uuid.uuid4(), 1 << 40),
            self.hub.outlet,
            self.metrics,
            buffer_bytes=1 << 24,
            held_max=10,
            frames_per_second=20,
        )
        self.hub.register(person.connection)
        welcome = await self.loader.load(person.connection.principal)
        person.snapshot = {each.group_id: each.last_seq for each in welcome.memberships}
        self.hub.join(person.connection, welcome.memberships)
        store = self._place.store
        person.have = {group_id: store.heads[group_id] for group_id, of in store.members.items() if user_id in of}
        return person

    def leave(self, person: Person) -> None:
        assert person.connection is not None
        self.hub.remove(person.connection)


async def _nothing(_: Collection[int]) -> bool:
    return False


class Watched(GroupRoutes):
    """Tells its place what it finds."""

    def __init__(self, place: "Place", redis: Redis, metrics: Metrics) -> None:
        super().__init__(redis, metrics)
        self._place = place

    async def read(self, group_ids: Collection[int]) -> Route | None:
        route = await super().read(group_ids)
        self._place.gateways = route.gateways if route else 0
        return route


class Place:
    """Gateways, a consumer and a Redis."""

    def __init__(self, redis_url: str, supervisor: Supervisor, redis: Redis, stack: AsyncExitStack) -> None:
        self._url = redis_url
        self._stack = stack
        self.supervisor = supervisor
        self.redis = redis
        self.store = Store()
        self.metrics = Metrics()
        self.alive: dict[str, Gateway] = {}
        self.gateways = 0
        """That tell, as the last publication knew."""
        self.routes = Watched(self, redis, self.metrics)
        self.delivery = self.pubsub(self.metrics)
        self.publisher = Publisher(
            self.delivery,
            "consumer",
            self.metrics,
            self.routes,
            max_blob_bytes=262144,
            heads_interval_s=0.1,
            heads_active_s=5,
            max_tracked_groups=10_000,
        )

    def pubsub(self, metrics: Metrics) -> RedisPubSubDelivery:
        publisher, subscriber = (
            connect(self._url, pool_max=1, connect_timeout_s=1, command_timeout_s=1) for _ in range(2)
        )
        return RedisPubSubDelivery(
            publisher, subscriber, self.supervisor, Readiness(), metrics, reconnect_max_s=0.2, timeout_s=1
        )

    async def gateway(self, name: str, *, tells: bool = True, **options: float) -> Gateway:
        """A new one. Its groups are routed as soon as publishers have heard of it: see `until_routed`."""
        gateway = Gateway(self, name, tells=tells, **options)
        await gateway.start()
        self._stack.push_async_callback(gateway.kill)
        return gateway

    async def commit(self, *group_ids: int) -> None:
        """A message for each group is stored, then published."""
        parts = []
        for group_id in group_ids:
            self.store.heads[group_id] += 1
            seq = self.store.heads[group_id]
            item = json.dumps({"seq": seq}).encode()
            parts.append(
                GroupMessages(group_id=group_id, access_version=self.store.version, first_seq=seq, items=[item])
            )
        assert await self.publisher.messages(parts, {})

    def routed(self, way: str = "nodes") -> float:
        """How many publications went this way."""
        return float(self.metrics.routes.labels(way)._value.get())

    async def until_routed(self) -> None:
        """Publish to a group that nobody has until it goes to nobody, and publishers and gateways know each other."""
        before = self.routed()
        telling = {name for name, gateway in self.alive.items() if gateway.tells}
        await until(lambda: self.routed() > before and self.gateways == len(telling), ask=lambda: self.commit(NOBODYS))
        await self.until_met()

    async def until_met(self) -> None:
        """Every gateway has heard of the publisher, and compared its groups for that."""
        await self.publisher.events([Event(group_id=NOBODYS, access_version=1)])
        for gateway in self.alive.values():
            await until(lambda hub=gateway.hub: hub.met and not hub.work.is_set())  # type: ignore[misc]  # bound now


@asynccontextmanager
async def placed(redis_url: str, supervisor: Supervisor) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        redis = connect(redis_url, pool_max=8, connect_timeout_s=1, command_timeout_s=1)
        stack.push_async_callback(redis.aclose)
        place = Place(redis_url, supervisor, redis, stack)
        await place.delivery.start("consumer", None, ())
        stack.push_async_callback(place.delivery.stop)
        yield place


async def until(condition: Callable[[], bool], ask: Callable[[], object] = lambda: None) -> None:
    async with asyncio.timeout(SLACK_S):
        while not condition():
            if asyncio.iscoroutine(asked := ask()):
                await asked
            await asyncio.sleep(LOOK_S)
