"""The objects of one process, each built on first use and without I/O."""

import os
import socket
import uuid
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from app import __version__
from app.brokers.base import Broker
from app.brokers.kinds import broker_of
from app.cluster.base import Node
from app.cluster.directory import Directory, ListDirectory, RingDirectory
from app.cluster.membership import Membership
from app.cluster.registries import registry_of
from app.consumer.dead_letter_table import DeadLetterTable
from app.consumer.dead_letter_watch import DeadLetterWatch
from app.consumer.feature import build_consumer
from app.consumer.loop import Consumer
from app.delivery.adapters import delivery_of, interest_of, routes_of
from app.delivery.base import Delivery
from app.delivery.publisher import Publisher
from app.ids import Snowflake, SnowflakeLease
from app.lifecycle import CrashPoint, Readiness, Supervisor
from app.metrics import Metrics
from app.modules.accounts.feature import AccountsFeature, accounts_feature
from app.modules.groups.feature import GroupsFeature, groups_feature
from app.modules.messages.feature import MessagesFeature, messages_feature
from app.modules.moderation.word_filter import WordFilter
from app.modules.presence.feature import PresenceFeature, presence_feature
from app.modules.search.feature import SearchFeature, search_feature
from app.settings import ROOT, Settings
from app.storage.postgres import Postgres
from app.storage.probe import StoreProbe
from app.storage.ratelimit import LocalBuckets, MinuteLimits, TokenBuckets
from app.storage.redis import Redis, connect
from app.storage.worker_leases import WorkerLeaseRepository
from app.web.answers import AnswerDesk
from app.web.credentials import Credentials, own_origins
from app.web.gateway.feature import GatewayFeature, gateway_feature
from app.web.gateway.notices import Notices
from app.web.health import Health
from app.web.limits import RequestLimits
from app.web.openapi import build_document
from app.web.server import Api

if TYPE_CHECKING:
    from app.delivery.grpc_server import PushServer
    from app.grpc_parts import GrpcParts
    from app.web.pages import Pages


class Parts:
    """The objects of one process, each built on first use."""

    def __init__(
        self,
        settings: Settings,
        stop: Callable[[str], None],
        *,
        delivery: Delivery | None = None,
        readiness: Readiness | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.settings = settings
        self.boot_id = uuid.uuid4().hex
        self.node_id = settings.gateway.node_id or f"{socket.gethostname()}-{settings.http.port}-{os.getpid()}"
        self.metrics = metrics or Metrics()
        self.readiness = readiness or Readiness()
        self.supervisor = Supervisor(stop)
        self.crash = CrashPoint(settings.testing.crash_point)
        self._given_delivery = delivery

    @cached_property
    def postgres(self) -> Postgres:
        """The source of truth."""
        o = self.settings.postgres
        return Postgres(
            o.dsn.get_secret_value(),
            pool_min=o.pool_min,
            pool_max=o.pool_max,
            connect_timeout_s=o.connect_timeout_s,
            command_timeout_s=o.command_timeout_s,
            acquire_timeout_s=o.acquire_timeout_s,
            idle_in_transaction_s=o.idle_in_transaction_s,
        )

    @cached_property
    def redis(self) -> Redis:
        """Counters and caches."""
        return self._connect_redis(self.settings.redis.pool_max)

    def _connect_redis(self, pool_max: int, url: str = "") -> Redis:
        o = self.settings.redis
        return connect(
            url or o.url.get_secret_value(),
            pool_max=pool_max,
            connect_timeout_s=o.connect_timeout_s,
            command_timeout_s=o.command_timeout_s,
        )

    @cached_property
    def broker(self) -> Broker:
        """The log."""
        return broker_of(self.settings, self.supervisor, self.readiness, self._connect_redis, owner=self.node_id)

    @cached_property
    def delivery(self) -> Delivery:
        """The way down."""
        if self._given_delivery is not None:
            return self._given_delivery
        delivery = delivery_of(self.settings, self._connect_redis, self.supervisor, self.readiness, self.metrics)
        if self.settings.grpc.answers and self.grpc is not None and self.membership is not None:
            return self.grpc.in_front_of(delivery, self.membership)
        return delivery

    @cached_property
    def grpc(self) -> "GrpcParts | None":
        """Calls between processes; None: there are none."""
        if not (self.settings.cluster.registry and self.settings.grpc.enabled):
            return None
        from app.grpc_parts import GrpcParts  # takes half a second to import

        return GrpcParts(self.settings, self.supervisor, self.metrics)

    @cached_property
    def push_server(self) -> "PushServer | None":
        """Where a gateway is called by the others."""
        if self.grpc is None or self.membership is None:
            return None
        hub = self.gateway.hub
        return self.grpc.server(
            hub,
            self.membership,
            self.readiness,
            lambda: len(hub.connections),
            node_id=self.node_id,
            boot_id=self.boot_id,
        )

    @cached_property
    def publisher(self) -> Publisher:
        """Numbers what goes down."""
        o = self.settings.delivery
        return Publisher(
            self.delivery,
            self.boot_id,
            self.metrics,
            routes_of(self.settings, self.redis, self.metrics),
            max_blob_bytes=o.max_blob_bytes,
            heads_interval_s=o.heads_interval_s,
            heads_active_s=o.heads_active_s,
            max_tracked_groups=o.max_tracked_groups,
        )

    @cached_property
    def ids(self) -> Snowflake:
        """Stamps ids while the lease lasts."""
        return Snowflake(max_backward_ms=self.settings.ids.max_backward_ms)

    @cached_property
    def words(self) -> WordFilter:
        """The word filter."""
        o = self.settings.moderation
        return WordFilter(o.words_file, o.mode, reload_s=o.reload_s, file_max_bytes=o.file_max_bytes)

    @cached_property
    def lease(self) -> SnowflakeLease:
        """Keeps the worker id of `ids`."""
        o = self.settings.ids
        table = WorkerLeaseRepository(self.postgres)
        # Shown by `run.py cluster status`.
        name = f"{self.settings.role}:{self.node_id}:{__version__}"
        return SnowflakeLease(table, self.ids, self.readiness, name=name, lease_s=o.lease_s, renew_s=o.renew_s)

    @cached_property
    def limits(self) -> MinuteLimits:
        """The rate limits of users and addresses."""
        o = self.settings.limits
        buckets = TokenBuckets(
            self.redis,
            LocalBuckets(buckets_max=o.local_buckets_max),
            self.metrics,
            timeout_s=o.redis_timeout_s,
            retry_s=o.redis_retry_s,
        )
        return MinuteLimits(
            buckets,
            send_per_minute=o.send_per_minute,
            batch_max=o.batch_max,
            linger_s=o.linger_ms / 1000,
            waiting_max=o.waiting_max,
        )

    @cached_property
    def accounts(self) -> AccountsFeature:
        """Users and sessions."""
        return accounts_feature(
            self.postgres, self.redis, self.publisher, self.ids, self.directory.place_of, self.settings
        )

    @cached_property
    def directory(self) -> Directory:
        """Where users connect."""
        o = self.settings.gateway
        if self.membership is not None:
            directory = RingDirectory(self.settings.ws_url, o.origins)
            self.membership.subscribe(directory.on_ring)
            return directory
        if o.nodes:
            return ListDirectory(o.ws_urls, o.origins)
        return ListDirectory({self.node_id: self.settings.ws_url}, o.origins)

    @cached_property
    def node(self) -> Node:
        """This process as a gateway, once it listens."""
        server, o = self.push_server, self.settings.gateway
        # Through a proxy by its name: an address leads to one gateway.
        url = o.public_ws_url or f"{self.settings.ws_url}/{self.node_id}"
        address = "" if server is None else server.address
        points = self.settings.cluster.virtual_nodes
        return Node(self.node_id, self.boot_id, url, address, o.weight, "up", __version__, points)

    @cached_property
    def membership(self) -> Membership | None:
        """The gateways and who belongs to which; None: there is no registry."""
        registry = registry_of(self.settings, self._connect_redis)
        if registry is None:
            return None
        peers = None if self.grpc is None else self.grpc.peers()
        return Membership(
            registry,
            self.settings.cluster,
            self.metrics,
            self.readiness,
            peers=peers,
            on_isolated=self._let_everybody_go,
        )

    def _let_everybody_go(self) -> None:
        self.gateway.isolation.begin()

    @cached_property
    def credentials(self) -> Credentials:
        """Who sends a request."""
        return Credentials(self.accounts.sessions, self.accounts.tickets, own_origins(self.settings.http))

    @cached_property
    def api(self) -> Api:
        """HTTP operations."""
        return Api(self.credentials, self.request_limits, body_timeout_s=self.settings.http.body_timeout_s)

    @cached_property
    def probe(self) -> StoreProbe:
        """Sees outages."""
        o = self.settings.metrics
        return StoreProbe(
            self.postgres, self.redis, self.readiness, interval_s=o.probe_interval_s, timeout_s=o.probe_timeout_s
        )

    @cached_property
    def pages(self) -> "Pages":
        """Pages for browsers."""
        from app.web.pages import Pages  # their templates' engine, which only apis need

        return Pages(
            self.accounts.service,
            self.accounts.sessions,
            self.groups.service,
            self.request_limits,
            lambda: self.document,
            self.settings.http.public_url,
            ROOT / self.settings.http.web_folder if self.settings.http.web_folder else None,
            body_timeout_s=self.settings.http.body_timeout_s,
        )

    @cached_property
    def handlers(self) -> list[object]:
        """Operations below /api/v1."""
        mine = [self.accounts.handlers, self.groups.handlers, self.messages.handlers, self.search.handlers]
        return [*mine, *self.presence.handlers]

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return build_document(self.handlers)

    @cached_property
    def request_limits(self) -> RequestLimits:
        """Rate limits of HTTP."""
        return RequestLimits(self.limits.take_one, self.settings.limits)

    @cached_property
    def health(self) -> Health:
        """Probes and metrics."""
        return Health(self.readiness, self.metrics)

    @cached_property
    def groups(self) -> GroupsFeature:
        """Groups and members."""
        return groups_feature(self.postgres, self.publisher, self.ids, self.accounts.service, self.settings.groups)

    @cached_property
    def presence(self) -> PresenceFeature:
        """Who is connected where, and who is online."""
        return presence_feature(
            self.postgres,
            self.redis,
            self.publisher,
            self.groups.gate,
            self.groups.states,
            self.metrics,
            self.settings.presence,
            node_id=self.node_id,
            route_ttl_s=self.settings.gateway.route_ttl_s,
        )

    @cached_property
    def notices(self) -> Notices:
        """Typing and read marks on their way to others."""
        return Notices(self.publisher, self.metrics)

    @cached_property
    def messages(self) -> MessagesFeature:
        """Sending and reading messages."""
        return messages_feature(
            self.postgres,
            self.redis,
            self.broker,
            self.groups,
            self.accounts.service,
            self.limits,
            self.notices.on_read,
            self.metrics,
            self.settings,
            node_id=self.node_id,
            boot_id=self.boot_id,
        )

    @cached_property
    def search(self) -> SearchFeature:
        """Finding messages, and the index for it."""
        return search_feature(self.postgres, self.groups, self.crash, self.metrics, self.settings.search)

    @cached_property
    def answers(self) -> AnswerDesk:
        """Where answers to this process's sends arrive."""
        producer = self.messages.producer
        return AnswerDesk(self.boot_id, producer.on_answer, producer.on_answers_lost)

    @cached_property
    def gateway(self) -> GatewayFeature:
        """WebSocket connections and fan-out."""
        return gateway_feature(
            self.api.admit_socket,
            self.groups,
            self.messages,
            self.accounts.sessions,
            self.notices,
            self.presence,
            self.publisher,
            self.answers,
            self.metrics,
            self.settings,
            lambda hub: interest_of(self.settings, self.redis, self.node_id, hub),
            node_id=self.node_id,
            boot_id=self.boot_id,
            membership=self.membership,
        )

    @cached_property
    def consumer(self) -> Consumer:
        """From the log to the store."""
        return build_consumer(
            self.postgres,
            self.redis,
            self.broker,
            self.delivery,
            self.publisher,
            self.messages,
            self.groups.states,
            self.words,
            self.ids,
            self.readiness,
            self.crash,
            self.metrics,
            self.settings.consumer,
            owner=self.node_id,
        )

    @cached_property
    def dead_letter_watch(self) -> DeadLetterWatch:
        """Counts dead letters, and lets gateways know of replayed ones."""
        return DeadLetterWatch(DeadLetterTable(self.postgres), self.publisher, self.metrics)
