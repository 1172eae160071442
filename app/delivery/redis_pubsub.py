"""Delivery over Redis Pub/Sub: `Push:Group` and `Control` to all gateways, `Push:Node:{id}` to one, `Node:{id}` for answers to one node.

Publishing and subscribing use a connection each, so the order of the calls is the order of arrival on every channel.
"""

import asyncio
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

import structlog
from google.protobuf.message import DecodeError
from redis.asyncio.client import PubSub

from app.delivery.base import BlobsByNode, ByNode, Channel, Delivery, DeliveryUnavailable, Receiver
from app.lifecycle import Readiness, Supervisor
from app.metrics import Metrics
from app.protocol.magpie_pb2 import Answers, Blob
from app.storage.redis import ERRORS, Redis

log = structlog.get_logger(__name__)

MIN_WAIT_S = 0.05
PING_AFTER_S = 1.0
"""A silent subscription is asked for a sign of life: a cut that no packet reports would otherwise stay unnoticed."""

_KINDS = {str(channel).encode(): channel for channel in (Channel.GROUP, Channel.CONTROL)}
_NODE_PREFIX = f"{Channel.NODE}:".encode()


class RedisPubSubDelivery(Delivery):
    """`publisher` must be a client of its own with a single connection; `subscriber` one without a read timeout."""

    def __init__(
        self,
        publisher: Redis,
        subscriber: Redis,
        supervisor: Supervisor,
        readiness: Readiness,
        metrics: Metrics,
        *,
        reconnect_max_s: float,
        timeout_s: float,
    ) -> None:
        self._publisher = publisher
        self._subscriber = subscriber
        self._supervisor = supervisor
        self._readiness = readiness
        self._metrics = metrics
        self._reconnect_max_s = reconnect_max_s
        self._timeout_s = timeout_s
        self._task: asyncio.Task[None] | None = None

    async def start(self, node_id: str, receiver: Receiver | None, channels: Collection[Channel]) -> None:
        """Subscribe, with retries until it works."""
        if receiver is None:
            return
        live = asyncio.Event()
        names = [push_channel(node_id) if each is Channel.NODE else str(each) for each in channels]
        names.append(_node_channel(node_id))
        self._task = self._supervisor.spawn(self._listen(names, receiver, live), "delivery_subscription")
        await live.wait()

    async def publish(self, channel: Channel, blob: Blob, answers: ByNode = MappingProxyType({})) -> None:
        """PUBLISH the blob and to every node in one write, so that a gateway reads them in one go."""
        await self._hand_over([(str(channel), blob.SerializeToString()), *_to_nodes(answers)])

    async def push(self, blobs: BlobsByNode, answers: ByNode) -> None:
        """PUBLISH to every node in one write, answers behind the blobs."""
        to_nodes = (
            (push_channel(node), blob.SerializeToString()) for node, of_node in blobs.items() for blob in of_node
        )
        await self._hand_over([*to_nodes, *_to_nodes(answers)])

    async def answer(self, answers: ByNode) -> None:
        """PUBLISH to every node in one write."""
        await self._hand_over(_to_nodes(answers))

    async def _hand_over(self, payloads: Iterable[tuple[str, bytes]]) -> None:
        try:
            await self._publisher.run([("PUBLISH", channel, payload) for channel, payload in payloads])
        except ERRORS as error:
            raise DeliveryUnavailable(f"Redis: {error}") from error

    async def _listen(self, names: Sequence[str], receiver: Receiver, live: asyncio.Event) -> None:
        wait_s = MIN_WAIT_S
        while True:
            pubsub = self._subscriber.pubsub()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await pubsub.subscribe(*names)
                    for _ in names:
                        await pubsub.get_message(timeout=self._timeout_s)
                self._readiness.clear("delivery")
                wait_s = MIN_WAIT_S
                if live.is_set():
                    log.info("delivery_subscribed_again")
                    receiver.on_reconnected()
                live.set()
                await self._read(pubsub, receiver)
            except ERRORS as error:
                self._readiness.fail("delivery", "the subscription to Redis is down", error)
                receiver.on_cut()
            finally:
                await _close(pubsub)
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            wait_s = min(wait_s * 2, self._reconnect_max_s)

    async def _read(self, pubsub: PubSub, receiver: Receiver) -> None:
        """Read until the connection fails; redis-py's own silent reconnect is avoided by reading the connection below it."""
        connection: Any = pubsub.connection
        silent = False
        while True:
            try:
                async with asyncio.timeout(PING_AFTER_S):
                    reply = await connection.read_response(disconnect_on_error=False)
            except TimeoutError:
                if silent:
                    raise
                silent = True
                await connection.send_command("PING", check_health=False)
                continue
            silent = False
            if reply[0] == b"message":
                self._dispatch(reply[1], reply[2], receiver)

    def _dispatch(self, channel: bytes, payload: bytes, receiver: Receiver) -> None:
        kind = _KINDS.get(channel) or (Channel.NODE if channel.startswith(_NODE_PREFIX) else None)
        self._metrics.delivery_bytes.labels(kind.name.lower() if kind else "answers").inc(len(payload))
        try:
            if kind is None:
                receiver.on_answers(Answers.FromString(payload))
            else:
                receiver.on_blob(kind, Blob.FromString(payload))
        except DecodeError:
            log.error("blob_not_decodable", channel=channel.decode(errors="replace"), size=len(payload))

    async def stop(self) -> None:
        """Stop listening and close both clients."""
        if self._task is not None:
            await self._supervisor.end(self._task, self._timeout_s)
        await self._publisher.aclose()
        await self._subscriber.aclose()


def _to_nodes(answers: ByNode) -> Iterator[tuple[str, bytes]]:
    return ((_node_channel(node), batch.SerializeToString()) for node, batches in answers.items() for batch in batches)


def push_channel(node_id: str) -> str:
    """The channel `NODE` of one gateway."""
    return f"{Channel.NODE}:{{{node_id}}}"


def _node_channel(node_id: str) -> str:
    return f"Node:{{{node_id}}}"


async def _close(pubsub: PubSub) -> None:
    try:
        await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py leaves it without types
    except ERRORS:
        log.debug("pubsub_close_failed")
