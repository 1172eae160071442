"""Numbers the blobs of one process and repeats the heads of recently active groups.

Numbers are dense per channel; a blob that could not be handed over keeps its number, so that gateways notice the hole.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from time import monotonic
from types import MappingProxyType
from uuid import UUID

import structlog

from app.delivery.base import ByNode, Channel, Delivery, DeliveryUnavailable
from app.metrics import Metrics
from app.protocol.magpie_pb2 import Blob, Event, GroupMessages, Head, Revoke

log = structlog.get_logger(__name__)


class Publisher:
    """The way down for everything in this process that publishes."""

    def __init__(
        self,
        delivery: Delivery,
        boot_id: str,
        metrics: Metrics,
        *,
        max_blob_bytes: int,
        heads_interval_s: float,
        heads_active_s: float,
        max_tracked_groups: int,
    ) -> None:
        self._delivery = delivery
        self._boot_id = boot_id
        self._metrics = metrics
        self._max_blob_bytes = max_blob_bytes
        self._heads_interval_s = heads_interval_s
        self._heads_active_s = heads_active_s
        self._max_tracked_groups = max_tracked_groups
        self._numbers = dict.fromkeys(Channel, 0)
        self._locks = {channel: asyncio.Lock() for channel in Channel}
        self._active: OrderedDict[int, tuple[float, Head]] = OrderedDict()

    async def messages(self, groups: Sequence[GroupMessages], answers: ByNode) -> bool:
        """Publish stored messages and, with the last of them, answers.

        False: not handed over in full, try again (receivers drop what they have).
        """
        delivered = True
        *blobs, last = self._split(groups)
        for blob in blobs:
            delivered = await self._publish(Channel.GROUP, blob) and delivered
        delivered = await self._publish(Channel.GROUP, last, answers) and delivered
        # After the messages: a head that overtakes them would announce them as a gap.
        for group in groups:
            self._touch(group.group_id, group.first_seq + len(group.items) - 1, group.access_version)
        return delivered

    async def events(self, events: Sequence[Event]) -> bool:
        """Publish events without seq, in order."""
        delivered = await self._publish(Channel.GROUP, Blob(events=events))
        for event in events:
            if event.access_version:
                self._touch(event.group_id, 0, event.access_version)
        return delivered

    async def revoke(self, sids: Iterable[UUID], reason: str) -> bool:
        """Close the sockets of these sessions on every gateway."""
        return await self.control(Blob(revoke=Revoke(sids=[sid.bytes for sid in sids], reason=reason)))

    async def control(self, blob: Blob) -> bool:
        """Tell every gateway something that concerns no group. False: not handed over."""
        return await self._publish(Channel.CONTROL, blob)

    def announce(self, heads: Iterable[Head]) -> None:
        """Repeat these heads for a while with the others: of messages that another process has stored and nobody published."""
        for head in heads:
            self._touch(head.group_id, head.last_seq, head.access_version)

    async def run(self) -> None:
        """Beat until cancelled: heads and, on both channels, the newest number."""
        while True:
            await asyncio.sleep(self._heads_interval_s)
            oldest = monotonic() - self._heads_active_s
            while self._active and next(iter(self._active.values()))[0] < oldest:
                self._active.popitem(last=False)
            heads = [head for _, head in self._active.values()]
            # About 20 bytes a head.
            step = max(1, self._max_blob_bytes // 32)
            for start in range(0, max(1, len(heads)), step):
                await self._publish(Channel.GROUP, Blob(heads=heads[start : start + step]))
            await self._publish(Channel.CONTROL, Blob())

    def _touch(self, group_id: int, last_seq: int, access_version: int) -> None:
        known = self._active.get(group_id)
        if known is not None:
            last_seq, access_version = max(last_seq, known[1].last_seq), max(access_version, known[1].access_version)
        self._active[group_id] = (
            monotonic(),
            Head(group_id=group_id, last_seq=last_seq, access_version=access_version),
        )
        self._active.move_to_end(group_id)
        if len(self._active) > self._max_tracked_groups:
            self._active.popitem(last=False)

    def _split(self, groups: Sequence[GroupMessages]) -> Iterable[Blob]:
        blob, size = Blob(), 0
        for group in groups:
            part: GroupMessages | None = None
            for index, item in enumerate(group.items):
                if size and size + len(item) > self._max_blob_bytes:
                    yield blob
                    blob, size, part = Blob(), 0, None
                if part is None:
                    part = blob.messages.add(
                        group_id=group.group_id, access_version=group.access_version, first_seq=group.first_seq + index
                    )
                part.items.append(item)
                size += len(item) + 32
        if size:
            yield blob

    async def _publish(self, channel: Channel, blob: Blob, answers: ByNode = MappingProxyType({})) -> bool:
        # Numbers must arrive in order, so numbering and handing over are one step.
        async with self._locks[channel]:
            self._numbers[channel] += 1
            blob.publisher, blob.number = self._boot_id, self._numbers[channel]
            try:
                await self._delivery.publish(channel, blob, answers)
            except DeliveryUnavailable as error:
                log.warning("blob_not_published", channel=str(channel), number=blob.number, error=str(error))
                return False
        self._metrics.blobs_published.labels(channel.name.lower()).inc()
        return True
