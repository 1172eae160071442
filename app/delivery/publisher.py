"""Numbers the blobs of one process, chooses who gets them, and repeats the heads of recently active groups.

Numbers are dense per channel, on that of single nodes per node; a blob that could not be handed over keeps its number, so that gateways
notice the hole. With routes, messages and small talk (typing, read marks) go to the gateways that have the group. Everything else goes to
all: who is told may be new to the group, and heads find what a route has missed.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import monotonic
from types import MappingProxyType
from typing import TypeVar
from uuid import UUID

import structlog

from app.delivery.base import BlobsByNode, ByNode, Channel, Delivery, DeliveryUnavailable
from app.delivery.routes import GroupRoutes
from app.metrics import Metrics
from app.protocol.magpie_pb2 import Blob, Event, GroupMessages, Head, Revoke

log = structlog.get_logger(__name__)

MAX_NODES = 4096
"""Gateways whose numbers are remembered, restarts under other names included. The one that was sent nothing for longest is forgotten; if it
is there after all, it compares its groups once more."""

Part = TypeVar("Part", GroupMessages, Event)


class Publisher:
    """The way down for everything in this process that publishes."""

    def __init__(
        self,
        delivery: Delivery,
        boot_id: str,
        metrics: Metrics,
        routes: GroupRoutes | None = None,
        *,
        max_blob_bytes: int,
        heads_interval_s: float,
        heads_active_s: float,
        max_tracked_groups: int,
    ) -> None:
        self._delivery = delivery
        self._boot_id = boot_id
        self._metrics = metrics
        self._routes = routes
        self._max_blob_bytes = max_blob_bytes
        self._heads_interval_s = heads_interval_s
        self._heads_active_s = heads_active_s
        self._max_tracked_groups = max_tracked_groups
        self._numbers = dict.fromkeys(Channel, 0)
        self._node_numbers: OrderedDict[str, int] = OrderedDict()
        """By when they were last sent something."""
        self._forgotten = 0
        """The highest number of a gateway that is not remembered: counting goes on above it, so that whoever had it notices a hole."""
        self._locks = {channel: asyncio.Lock() for channel in Channel}
        self._active: OrderedDict[int, tuple[float, int, int]] = OrderedDict()
        """Group → when it was last heard of, its last_seq, its access_version; the one touched last stands last."""

    async def messages(self, groups: Sequence[GroupMessages], answers: ByNode) -> bool:
        """Publish stored messages and, with the last of them, answers.

        False: not handed over in full, try again (receivers drop what they have).
        """
        delivered = await self._messages(groups, answers)
        # After the messages: a head that overtakes them would announce them as a gap.
        for group in groups:
            self._touch(group.group_id, group.first_seq + len(group.items) - 1, group.access_version)
        return delivered

    async def _messages(self, groups: Sequence[GroupMessages], answers: ByNode) -> bool:
        chosen = await self._chosen(groups)
        if chosen is None:
            # These need no route: who waits for an ack may have it.
            with suppress(DeliveryUnavailable):
                await self._delivery.answer(answers)
            return False
        for_all, by_node = chosen
        delivered, blobs = True, list(self._split(for_all))
        last = blobs.pop() if blobs and not by_node else None
        for blob in blobs:
            delivered = await self._publish(Channel.GROUP, blob) and delivered
        if last is not None:
            return await self._publish(Channel.GROUP, last, answers) and delivered
        pushed = {node_id: list(self._split(parts)) for node_id, parts in by_node.items()}
        return await self._push(pushed, answers) and delivered

    async def events(self, events: Sequence[Event]) -> bool:
        """Publish events without seq, in order; but small talk and the others may overtake each other."""
        talk = [event for event in events if not event.user_ids and not event.access_version]
        changes = [event for event in events if event.user_ids or event.access_version]
        delivered = await self._talk(talk)
        if changes:
            delivered = await self._publish(Channel.GROUP, Blob(events=changes)) and delivered
        for event in changes:
            if event.access_version:
                self._touch(event.group_id, 0, event.access_version)
        return delivered

    async def _talk(self, events: Sequence[Event]) -> bool:
        chosen = await self._chosen(events)
        if chosen is None:
            return False
        for_all, by_node = chosen
        delivered = True
        if for_all:
            delivered = await self._publish(Channel.GROUP, Blob(events=for_all))
        if by_node:
            pushed = {node_id: [Blob(events=parts)] for node_id, parts in by_node.items()}
            delivered = await self._push(pushed, MappingProxyType({})) and delivered
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
            heads = [
                Head(group_id=group_id, last_seq=last_seq, access_version=access_version)
                for group_id, (_, last_seq, access_version) in self._active.items()
            ]
            # About 20 bytes a head.
            step = max(1, self._max_blob_bytes // 32)
            for start in range(0, max(1, len(heads)), step):
                await self._publish(Channel.GROUP, Blob(heads=heads[start : start + step]))
            await self._publish(Channel.CONTROL, Blob())

    def _touch(self, group_id: int, last_seq: int, access_version: int) -> None:
        known = self._active.get(group_id)
        if known is not None:
            last_seq, access_version = max(last_seq, known[1]), max(access_version, known[2])
        self._active[group_id] = (monotonic(), last_seq, access_version)
        self._active.move_to_end(group_id)
        if len(self._active) > self._max_tracked_groups:
            self._active.popitem(last=False)

    async def _chosen(self, parts: Sequence[Part]) -> tuple[list[Part], dict[str, list[Part]]] | None:
        """What goes to all, and what to single nodes; None: it cannot be known now."""
        route = None
        if self._routes is not None and parts:
            try:
                route = await self._routes.read({part.group_id for part in parts})
            except DeliveryUnavailable as error:
                log.warning("routes_not_read", error=str(error))
                return None
        if route is None:
            return list(parts), {}
        for_all: list[Part] = []
        by_node: dict[str, list[Part]] = {}
        for part in parts:
            nodes = route.by_group[part.group_id]
            if len(nodes) > 1 and len(nodes) == route.gateways:
                # Once, instead of once for each.
                for_all.append(part)
                continue
            for node_id in nodes:
                by_node.setdefault(node_id, []).append(part)
        return for_all, by_node

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

    async def _push(self, blobs: BlobsByNode, answers: ByNode) -> bool:
        async with self._locks[Channel.NODE]:
            for node_id, of_node in blobs.items():
                for blob in of_node:
                    number = self._node_numbers.pop(node_id, self._forgotten) + 1
                    self._node_numbers[node_id] = number
                    blob.publisher, blob.number = self._boot_id, number
            while len(self._node_numbers) > MAX_NODES:
                self._forgotten = max(self._forgotten, self._node_numbers.popitem(last=False)[1])
            try:
                await self._delivery.push(blobs, answers)
            except DeliveryUnavailable as error:
                log.warning("blobs_not_pushed", nodes=len(blobs), error=str(error))
                return False
        self._metrics.blobs_published.labels(Channel.NODE.name.lower()).inc(sum(map(len, blobs.values())))
        return True
