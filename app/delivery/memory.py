"""Delivery inside one process, for `role = all`: a call."""

from collections.abc import Collection
from types import MappingProxyType

from app.delivery.base import BlobsByNode, ByNode, Channel, Delivery, Receiver
from app.protocol.magpie_pb2 import Blob


class MemoryDelivery(Delivery):
    """Hands every blob and every answer to the one receiver of this process, in the caller's turn of the loop."""

    def __init__(self) -> None:
        self._node_id = ""
        self._receiver: Receiver | None = None
        self._channels: Collection[Channel] = ()

    async def start(self, node_id: str, receiver: Receiver | None, channels: Collection[Channel]) -> None:
        """Remember the receiver."""
        self._node_id, self._receiver, self._channels = node_id, receiver, channels

    async def publish(self, channel: Channel, blob: Blob, answers: ByNode = MappingProxyType({})) -> None:
        """Call the receiver."""
        if self._receiver is not None and channel in self._channels:
            self._receiver.on_blob(channel, blob)
        await self.answer(answers)

    async def push(self, blobs: BlobsByNode, answers: ByNode) -> None:
        """Call the receiver with what is for this node; there is no other node."""
        if self._receiver is not None and Channel.NODE in self._channels:
            for blob in blobs.get(self._node_id, ()):
                self._receiver.on_blob(Channel.NODE, blob)
        await self.answer(answers)

    async def answer(self, answers: ByNode) -> None:
        """Call the receiver with the answers for this node; there is no other node."""
        if self._receiver is not None:
            for mine in answers.get(self._node_id, ()):
                self._receiver.on_answers(mine)

    async def stop(self) -> None:
        """Let go of the receiver."""
        self._receiver = None
