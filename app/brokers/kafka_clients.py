"""aiokafka's clients with our settings, and ways to stop them that end when the cluster is away.

aiokafka 0.14 waits without bound where it retries, also in `stop()`: each class here adds `end`, which does not.
"""

import asyncio
import ssl
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, ProducerClosed

from app.sections import Kafka
from app.tls import client_context

AWAY: tuple[type[BaseException], ...] = (KafkaError, OSError, TimeoutError, RuntimeError)
"""The cluster is away or cannot do what was asked. RuntimeError is uvloop's for writing to a connection that has just been closed."""
FETCH_WAIT_MS = 100
"""A fetch that finds nothing waits this long on the server; aiokafka sends nothing else for a partition that was not in it meanwhile."""
PARTITION_FETCH_BYTES = 262_144
"""About two full batches: decoding more at once would hold up the loop, and other partitions wait behind it."""


class Connection:
    """How to reach the cluster; builds clients."""

    def __init__(self, options: Kafka) -> None:
        self.options = options
        self._ssl: ssl.SSLContext | None = None

    async def prepare(self) -> None:
        """Read the certificates. Raises ConfigError when one cannot be used."""
        o = self.options
        if self._ssl is not None or "SSL" not in o.security_protocol:
            return
        files = o.ssl_ca_file, o.ssl_cert_file, o.ssl_key_file
        self._ssl = await asyncio.to_thread(client_context, "kafka.ssl_*", *files)

    def arguments(self, request_timeout_s: float) -> dict[str, Any]:
        """Arguments that all clients take."""
        o = self.options
        arguments: dict[str, Any] = {
            "bootstrap_servers": list(o.bootstrap_servers),
            "client_id": "magpie",
            "request_timeout_ms": round(request_timeout_s * 1000),
            "security_protocol": o.security_protocol,
            "ssl_context": self._ssl,
        }
        if o.security_protocol.startswith("SASL"):
            arguments |= {
                "sasl_mechanism": o.sasl_mechanism,
                "sasl_plain_username": o.sasl_username,
                "sasl_plain_password": o.sasl_password.get_secret_value(),
            }
        return arguments

    def writer(self) -> "Writer":
        """An idempotent producer; it retries a batch until the cluster has answered, so nothing is appended twice or out of order."""
        o = self.options
        return Writer(
            **self.arguments(o.request_timeout_s),
            enable_idempotence=True,
            acks="all",
            max_batch_size=o.max_batch_bytes,
            # One batch of each partition may stand in a request.
            max_request_size=o.max_batch_bytes,
        )

    def member(self) -> "Member":
        """A consumer of the group that has not joined yet."""
        o = self.options
        return Member(
            # Joining waits for the other members, for as long as a session.
            **self.arguments(o.session_timeout_s + o.request_timeout_s),
            group_id=o.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=round(o.session_timeout_s * 1000),
            rebalance_timeout_ms=round(o.session_timeout_s * 1000),
            heartbeat_interval_ms=round(o.heartbeat_s * 1000),
            # A store that is away for long stops the fetching; leaving the group for it would help nobody.
            max_poll_interval_ms=2**31 - 1,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES,
        )

    def desk(self) -> "Desk":
        """Answers questions about the group and the log."""
        o = self.options
        return Desk(**self.arguments(o.request_timeout_s), group_id=o.group, enable_auto_commit=False)


class Writer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka has no types
    """A producer."""

    async def end(self, timeout_s: float) -> None:
        """Stop after at most twice `timeout_s`: what is not acknowledged in the first half is given up."""
        stopping = asyncio.ensure_future(self.stop())
        await asyncio.wait({stopping}, timeout=timeout_s)
        if not stopping.done():
            self._message_accumulator.fail_all(ProducerClosed())
            await asyncio.wait({stopping}, timeout=timeout_s)
        await _finish(stopping)
        await _close(self.client)


class Member(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka has no types
    """A member of the consumer group."""

    _ending: "asyncio.Future[None] | None" = None

    async def end(self, timeout_s: float) -> None:
        """Leave the group and stop, after at most twice `timeout_s`. May be called again when it was cancelled."""
        if self._ending is None:
            self._ending = asyncio.ensure_future(self.stop())
        await asyncio.wait({self._ending}, timeout=timeout_s)
        if not self._ending.done():
            # No coordinator, so no farewell to it; closed connections, so nothing waits for an answer.
            if self._coordinator is not None:
                self._coordinator.coordinator_dead()
            await _close(self._client)
            await asyncio.wait({self._ending}, timeout=timeout_s)
        await _finish(self._ending)
        await _close(self._client)


class Desk(Member):
    """Asks about the group and the log on connections of its own, behind no fetch that waits. It never subscribes, so it is no member."""

    async def refresh(self, topic: str) -> bool:
        """Read the cluster's metadata; whether any of its servers answered."""
        self._client.set_topics([topic])
        return bool(await self._client.force_metadata_update())

    async def committed_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The group's positions in one request; who has none is absent."""
        found = await self._coordinator.fetch_committed_offsets(list(partitions))
        return {partition: entry.offset for partition, entry in found.items()}


async def _finish(stopping: "asyncio.Future[None]") -> None:
    """The end of a stop: cancelled if it still waits for somebody; failures do not matter any more."""
    if not stopping.done():
        stopping.cancel()
        await asyncio.wait({stopping}, timeout=1)
    if stopping.done() and not stopping.cancelled():
        stopping.exception()


async def _close(client: AIOKafkaClient) -> None:
    """Close all connections. The task that reads metadata may have died of one that was closed under it; that is no matter any more."""
    try:
        await client.close()
    except AWAY:
        client._sync_task = None  # noqa: SLF001 - it would be awaited once more
        await client.close()
