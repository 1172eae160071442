"""The contract of delivery: blobs to all gateways or to one, answers to one node. A hint, never the truth.

**Order.** The blobs that one process publishes on one channel, or pushes to one node, arrive in the order of the calls. Answers may
overtake blobs and, where the way to a node changes, each other: they are told apart by their number.
**Delivery.** Blobs at most once. Whatever is lost is noticed: blobs are numbered by their publisher, a reader that misses a number, meets a
new publisher, or is told `on_cut` or `on_reconnected` compares its groups with the store. Answers may be lost, which their sender notices
in time, or come twice: the second is dropped, as that of a batch that was done again.
**Errors.** `publish` and `answer` raise `DeliveryUnavailable` when the hand-over failed; the payload may still have arrived.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from app.protocol.magpie_pb2 import Answers, Blob

ByNode = Mapping[str, Sequence[Answers]]
"""Answers by node id."""
BlobsByNode = Mapping[str, Sequence[Blob]]
"""Blobs by node id; those of a node in order."""


class DeliveryUnavailable(Exception):
    """The way down is away; try again or leave it to the numbers."""


class Channel(StrEnum):
    """What a gateway listens to."""

    GROUP = "Push:Group"
    """Messages, events, heads, for every gateway."""
    CONTROL = "Control"
    """Closing of sockets, and who is connected where, for every gateway."""
    NODE = "Push:Node"
    """Messages and small talk of groups with members on one gateway; each has its own. In use with `delivery.group = routed`."""


class Receiver(Protocol):
    """What a node does with what arrives. Called on the event loop; must not block and must not raise."""

    def on_blob(self, channel: Channel, blob: Blob) -> None:
        """A blob of any publisher, this process included."""

    def on_answers(self, answers: Answers) -> None:
        """Answers to sends of this node."""

    def on_cut(self) -> None:
        """Nothing arrives any more, until `on_reconnected`. May be called again meanwhile."""

    def on_reconnected(self) -> None:
        """The subscription was interrupted; anything may have been missed."""


class Delivery(ABC):
    """One adapter; `start` before use."""

    @abstractmethod
    async def start(self, node_id: str, receiver: Receiver | None, channels: Collection[Channel]) -> None:
        """Connect; with a receiver also subscribe to the answers for `node_id` and to `channels`.

        Returns only when the subscription is live.
        """

    @abstractmethod
    async def publish(self, channel: Channel, blob: Blob, answers: ByNode = MappingProxyType({})) -> None:
        """Hand a blob to every gateway, and answers to nodes, at the same time. Raises DeliveryUnavailable."""

    @abstractmethod
    async def push(self, blobs: BlobsByNode, answers: ByNode) -> None:
        """Hand each node its own blobs, on its channel `NODE`, and answers, at the same time. Raises DeliveryUnavailable.

        A node that does not listen to it gets none.
        """

    @abstractmethod
    async def answer(self, answers: ByNode) -> None:
        """Hand answers to nodes. Raises DeliveryUnavailable."""

    @abstractmethod
    async def stop(self) -> None:
        """Disconnect."""
