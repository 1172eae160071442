"""Appends to Kafka. One batch of a partition is under way at a time, and nothing passes one whose fate is open.

So order survives every failure: aiokafka repeats a batch under its producer id and number until the cluster has answered, the server
appends it once, and the next batch of the partition begins only then. A timeout ends the caller's wait, not the batch; its
partition refuses what comes after it as long as its fate is open. A producer that failed is replaced, and the new one gets a
partition when nothing of the old one is under way there.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import structlog

from app.brokers.kafka_clients import AWAY, Connection, Writer
from app.brokers.kafka_cluster import Cluster, away
from app.errors import Internal

log = structlog.get_logger(__name__)


class Lane:
    """The way into one partition."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.under_way: asyncio.Future[Any] | None = None
        self.writer: Writer | None = None
        self.overdue = False

    @property
    def open(self) -> bool:
        """The fate of the last batch is not known yet."""
        return self.under_way is not None and not self.under_way.done()

    def begin(self, batch: "asyncio.Future[Any]", writer: Writer) -> "asyncio.Future[Any]":
        """A batch is on its way now."""
        self.under_way, self.writer, self.overdue = batch, writer, False
        # Looked at by nobody when its caller has given up.
        batch.add_done_callback(lambda done: done.cancelled() or done.exception())
        return batch


class Appender:
    """The lanes of all partitions, and the producer behind them."""

    def __init__(self, connection: Connection, cluster: Cluster, partitions: int, timeout_s: float) -> None:
        self._connection = connection
        self._cluster = cluster
        self._options = connection.options
        self._timeout_s = timeout_s
        self._lanes = [Lane() for _ in range(partitions)]
        self._writer: Writer | None = None
        self._retired: list[Writer] = []
        self._failed = asyncio.Event()

    async def start(self) -> None:
        """Connect. Raises Busy."""
        try:
            self._writer = await self._connect()
        except AWAY as error:
            raise away(error) from error

    async def append(self, partition: int, values: Sequence[bytes]) -> None:
        """As in `Broker`."""
        lane = self._lanes[partition]
        writer: Writer | None = None
        begun = False
        try:
            async with asyncio.timeout(self._timeout_s), lane.lock:
                if lane.open and not lane.overdue and lane.under_way is not None:
                    # Its caller was cancelled; there is no reason to believe that it takes long.
                    await asyncio.wait({lane.under_way})
                writer = self._ready(lane)
                for batch in self._batches(writer, values):
                    sent = lane.begin(await writer.send_batch(batch, self._options.topic, partition=partition), writer)
                    begun = True
                    await asyncio.wait({sent})
                    sent.result()
        except TimeoutError:
            log.warning("kafka_append_timed_out", partition=partition, begun=begun)
            if not begun:
                raise away() from None
            lane.overdue = lane.open
            raise Internal("it is not known whether the message was taken; send again with the same id") from None
        except AWAY as error:
            self._retire(writer, error)
            if not begun:
                raise away(error) from error
            raise Internal("it is not known whether the message was taken; send again with the same id") from error

    async def run(self) -> None:
        """Replace a producer that failed, and stop it when nothing of it is under way any more; until cancelled."""
        while True:
            if self._writer is None:
                try:
                    self._writer = await self._connect()
                    log.info("kafka_producer_replaced")
                except AWAY:
                    log.debug("kafka_producer_not_replaced")
            for writer in [w for w in self._retired if not any(lane.open and lane.writer is w for lane in self._lanes)]:
                self._retired.remove(writer)
                await writer.end(self._options.request_timeout_s)
            self._failed.clear()
            try:
                async with asyncio.timeout(self._options.probe_s):
                    await self._failed.wait()
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Give up what is under way, and disconnect."""
        writers = [*self._retired, *([self._writer] if self._writer is not None else [])]
        self._writer, self._retired = None, []
        await asyncio.gather(*(writer.end(self._options.request_timeout_s) for writer in writers))

    def _ready(self, lane: Lane) -> Writer:
        if lane.open or self._cluster.away or self._writer is None:
            raise away()
        return self._writer

    def _batches(self, writer: Writer, values: Sequence[bytes]) -> Iterator[Any]:
        batch = writer.create_batch()
        for value in values:
            if batch.append(timestamp=None, key=None, value=value) is None:
                yield batch
                batch = writer.create_batch()
                # The first value of a batch fits, whatever its size.
                batch.append(timestamp=None, key=None, value=value)
        if batch.record_count():
            batch.close()
            yield batch

    def _retire(self, writer: Writer | None, error: BaseException) -> None:
        """After any failure: a batch that was refused leaves a hole in the producer's numbers, and all after it are refused for that."""
        if writer is not None and writer is self._writer:
            log.warning("kafka_append_failed", reason=type(error).__name__)
            self._writer = None
            self._retired.append(writer)
            self._failed.set()

    async def _connect(self) -> Writer:
        writer = self._connection.writer()
        try:
            async with asyncio.timeout(self._options.request_timeout_s):
                await writer.start()
                await writer.partitions_for(self._options.topic)
        except BaseException:
            await writer.end(self._options.probe_s)
            raise
        return writer
