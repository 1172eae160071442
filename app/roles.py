"""The composition root: what each role consists of.

A role is a tuple of features; a feature adds lifetimes, HTTP handlers and routes. Lifetimes start in the order given and end in reverse, so
what is needed longest comes first. The objects themselves are built in `parts.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web

from app.cluster.membership import Membership
from app.consumer.fence import check_partitions
from app.delivery.base import Channel, Delivery
from app.errors import Busy
from app.lifecycle import Readiness, until_there
from app.metrics import Metrics
from app.parts import Parts
from app.settings import Role, Settings
from app.web.cookies import setup_cookies
from app.web.middlewares import edge

log = structlog.get_logger(__name__)

Lifetime = Callable[[Parts], AbstractAsyncContextManager[None]]

STOP_S = 5.0
"""At shutdown every part gets this long: sockets to close, the log to be stored, tasks to end."""
DRAIN_LOOK_S = 0.02

PARTS = web.AppKey("parts", Parts)

# Lifetimes: each starts what it names, runs while the application serves, and ends it.


@asynccontextmanager
async def stores(parts: Parts) -> AsyncIterator[None]:
    """PostgreSQL, Redis and a worker id, for every role."""
    await parts.postgres.start()
    try:
        await check_partitions(parts.postgres, parts.broker)
        await parts.lease.acquire()
        parts.supervisor.spawn(parts.lease.run(), "worker_lease")
        parts.supervisor.spawn(parts.metrics.watch_loop(), "loop_lag")
        parts.supervisor.spawn(parts.probe.run(), "store_probe")
        await parts.words.load()
        yield
    finally:
        await parts.supervisor.stop(STOP_S)
        await parts.lease.release()
        parts.accounts.passwords.stop()
        await parts.redis.aclose()
        await parts.postgres.stop(STOP_S)


@asynccontextmanager
async def publishing(parts: Parts) -> AsyncIterator[None]:
    """Delivery for who only publishes, and the heads that make it whole."""
    await parts.delivery.start(parts.node_id, None, ())
    async with _beating(parts):
        yield


@asynccontextmanager
async def answered(parts: Parts) -> AsyncIterator[None]:
    """Delivery for who sends and has no sockets."""
    await parts.delivery.start(parts.node_id, parts.answers, ())
    async with _beating(parts):
        yield


@asynccontextmanager
async def fanning_out(parts: Parts) -> AsyncIterator[None]:
    """Delivery for a gateway: everything, to its sockets."""
    await parts.delivery.start(parts.node_id, parts.gateway.hub, tuple(Channel))
    async with _beating(parts):
        yield


@asynccontextmanager
async def _beating(parts: Parts) -> AsyncIterator[None]:
    parts.supervisor.spawn(parts.publisher.run(), "publisher")
    yield
    await parts.delivery.stop()


@asynccontextmanager
async def way_up(parts: Parts) -> AsyncIterator[None]:
    """The broker, for who appends and who reads."""
    options = parts.settings.broker
    await until_there(parts.broker.start, "the broker", parts.readiness, wait_s=options.startup_wait_s)
    yield
    await parts.broker.stop()


@asynccontextmanager
async def consuming(parts: Parts) -> AsyncIterator[None]:
    """The consumer; at the end it finishes its batch, and a log that ends with this process too."""
    task = parts.supervisor.spawn(parts.consumer.run(), "consumer")
    parts.supervisor.spawn(parts.consumer.watch(parts.settings.consumer.watch_s), "consumer_watch")
    parts.supervisor.spawn(parts.dead_letter_watch.run(parts.settings.consumer.watch_s), "dead_letter_watch")
    parts.supervisor.spawn(parts.words.run(), "word_list")
    yield
    if not parts.broker.durable:
        await _drain(parts, task)
    # It gives its partitions up before the broker goes.
    await parts.supervisor.end(task, STOP_S, ask=parts.consumer.stop)


async def _drain(parts: Parts, consumer: asyncio.Task[None]) -> None:
    try:
        async with asyncio.timeout(STOP_S):
            while any((await parts.broker.backlog()).values()) and not consumer.done():  # noqa: ASYNC110 - once, at the end; no event is worth its upkeep
                await asyncio.sleep(DRAIN_LOOK_S)
    except TimeoutError:
        log.warning("log_not_drained")


@asynccontextmanager
async def indexing(parts: Parts) -> AsyncIterator[None]:
    """The search index; what is not done at the end is done after the next start."""
    if parts.settings.search.index:
        parts.supervisor.spawn(parts.search.indexer.run(), "search_indexer")
    yield


@asynccontextmanager
async def sending(parts: Parts) -> AsyncIterator[None]:
    """What clients send, by sockets and HTTP: messages into the log, notices to the others of a group."""
    parts.supervisor.spawn(parts.messages.producer.run(), "producer")
    parts.supervisor.spawn(parts.messages.producer.watch(), "producer_watch")
    parts.supervisor.spawn(parts.notices.run(), "notices")
    yield
    try:
        async with asyncio.timeout(STOP_S):
            await parts.messages.producer.flush()
    except TimeoutError:
        log.warning("sends_lost_at_shutdown")


@asynccontextmanager
async def sockets(parts: Parts) -> AsyncIterator[None]:
    """WebSocket connections and what looks after them."""
    for name, loop in parts.gateway.loops().items():
        parts.supervisor.spawn(loop(), name)
    parts.supervisor.spawn(parts.messages.read_marks.run(), "read_marks")
    await parts.gateway.endpoint.start()
    yield
    try:
        async with asyncio.timeout(STOP_S):
            await parts.messages.read_marks.flush()
    except (Busy, TimeoutError):
        log.warning("read_marks_lost_at_shutdown")
    try:
        async with asyncio.timeout(STOP_S):
            await parts.gateway.users.write_changes()
    except (Busy, TimeoutError):
        # They expire.
        log.warning("routes_left_at_shutdown")


@asynccontextmanager
async def registered(parts: Parts) -> AsyncIterator[None]:
    """A gateway among the others: last to come, when everything behind it works."""

    async def join(membership: Membership) -> None:
        wait_s = parts.settings.cluster.startup_wait_s
        await until_there(lambda: membership.start(parts.node), "the registry", parts.readiness, wait_s=wait_s)

    async with _in_cluster(parts, join):
        yield


@asynccontextmanager
async def called(parts: Parts) -> AsyncIterator[None]:
    """A gateway as others call it; before they know its address."""
    server = parts.push_server
    if server is not None:
        await server.start()
    yield
    if server is not None:
        await server.stop()


@asynccontextmanager
async def pushing(parts: Parts) -> AsyncIterator[None]:
    """The gateways, for who answers them without Redis between; by Redis until the registry is there."""
    if not parts.settings.grpc.answers:
        yield
        return
    async with _in_cluster(parts, Membership.step):
        yield


@asynccontextmanager
async def watching(parts: Parts) -> AsyncIterator[None]:
    """The gateways, for who sends users to them; not ready until the registry is there, but all else is served."""

    async def look(membership: Membership) -> None:
        parts.readiness.expect("registry", "waiting for the registry")
        await membership.step()

    async with _in_cluster(parts, look):
        yield


@asynccontextmanager
async def _in_cluster(parts: Parts, begin: Callable[[Membership], Awaitable[None]]) -> AsyncIterator[None]:
    membership = parts.membership
    if membership is None:
        yield
        return
    try:
        await begin(membership)
        task = parts.supervisor.spawn(membership.run(), "membership")
        yield
        await parts.supervisor.end(task, STOP_S)
    finally:
        await membership.leave()


async def _nothing(_: Parts) -> None:
    """There is nothing to end early."""


@dataclass(frozen=True, slots=True)
class Feature:
    """What a role serves: lifetimes, and what is added to the application.

    At the end `drain` comes first, while everything is still served, and only when the end is no failure; then `close`, before running
    requests are waited for.
    """

    lifetimes: tuple[Lifetime, ...]
    serve: Callable[[web.Application, Parts], None] = lambda *_: None
    drain: Callable[[Parts], Awaitable[None]] = _nothing
    close: Callable[[Parts], Awaitable[None]] = _nothing


def _serve_health(app: web.Application, parts: Parts) -> None:
    app.add_routes(parts.health.routes())


def _serve_api(app: web.Application, parts: Parts) -> None:
    app.add_routes(parts.api.routes(parts.handlers))
    parts.pages.setup(app)


def _serve_sockets(app: web.Application, parts: Parts) -> None:
    app.add_routes(parts.gateway.endpoint.routes())


async def _drain_sockets(parts: Parts) -> None:
    gateway, directory, o = parts.gateway, parts.directory, parts.settings.gateway
    await _take_no_more(parts)
    # Where there is no other gateway they wait for this one to come back: the sooner the better.
    within_s = o.drain_s if directory.has_others(parts.node_id) else 0.0
    await gateway.drainer.drain(
        "shutdown",
        list(gateway.hub.connections),
        within_s,
        deserted=lambda: parts.membership is not None and parts.membership.deserted,
    )


async def _close_sockets(parts: Parts) -> None:
    await _take_no_more(parts)
    await parts.gateway.closer.close_all(parts.gateway.hub, STOP_S)


async def _take_no_more(parts: Parts) -> None:
    endpoint = parts.gateway.endpoint
    if not endpoint.accepting:
        return
    endpoint.accepting = False
    parts.readiness.expect("gateway", "draining: connections are asked to go, and no new ones are taken")
    if parts.membership is not None:
        # Whoever is asked to go asks where to.
        await parts.membership.drain()


COMMON = Feature((stores,), _serve_health)
DOWN_ONLY = Feature((publishing, way_up))
ANSWERED = Feature((answered, way_up))
FAN_OUT = Feature((fanning_out, way_up))
CONSUMER = Feature((consuming, indexing))
API = Feature((sending,), _serve_api)
GATEWAY = Feature((sending, sockets, called, registered), _serve_sockets, _drain_sockets, _close_sockets)
WATCHING = Feature((watching,))
PUSHING = Feature((pushing,))

ROLES: Mapping[Role, tuple[Feature, ...]] = {
    "all": (COMMON, FAN_OUT, CONSUMER, API, GATEWAY),
    "gateway": (COMMON, FAN_OUT, GATEWAY),
    "api": (COMMON, ANSWERED, API, WATCHING),
    "consumer": (COMMON, DOWN_ONLY, CONSUMER, PUSHING),
}


def build_app(
    settings: Settings,
    *,
    stop: Callable[[str], None],
    delivery: Delivery | None = None,
    readiness: Readiness | None = None,
    metrics: Metrics | None = None,
) -> web.Application:
    """The application of `settings.role`, not started. `stop` is called with a reason when a part dies.

    `delivery` replaces the configured adapter; tests use it to lose things. `readiness` and `metrics` may be in use already.
    """
    parts = Parts(settings, stop, delivery=delivery, readiness=readiness, metrics=metrics)
    features = ROLES[settings.role]
    app = web.Application(
        middlewares=[edge(parts.metrics, settings.http.trusted_proxies, parts.directory.origins)],
        client_max_size=settings.http.max_body_bytes,
    )
    app[PARTS] = parts
    setup_cookies(
        app,
        settings.auth.secret.get_secret_value(),
        max_age_s=settings.auth.token_ttl_s,
        secure=settings.http.public_url.startswith("https:"),
    )
    for feature in features:
        feature.serve(app, parts)
    # Each once, in the order of first mention.
    for lifetime in dict.fromkeys(lifetime for feature in features for lifetime in feature.lifetimes):
        app.cleanup_ctx.append(_during(lifetime, parts))

    async def close(_: web.Application) -> None:
        for feature in features:
            await feature.close(parts)

    app.on_shutdown.append(close)
    return app


async def drain(app: web.Application) -> None:
    """The first step to an orderly end, while everything is still served: users go elsewhere. Bounded by `gateway.drain_s`."""
    parts = app[PARTS]
    for feature in ROLES[parts.settings.role]:
        await feature.drain(parts)


def _during(lifetime: Lifetime, parts: Parts) -> Callable[[web.Application], AsyncIterator[None]]:
    async def run(_: web.Application) -> AsyncIterator[None]:
        async with lifetime(parts):
            yield

    return run
