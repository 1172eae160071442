"""A delivery adapter that loses what a test tells it to lose; everything else passes as in one process."""

from collections.abc import Callable

from app.delivery.base import Channel
from app.delivery.memory import MemoryDelivery
from app.protocol.magpie_pb2 import Blob


class LossyDelivery(MemoryDelivery):
    """Drops the blobs for which `lose` is true, without telling anybody."""

    def __init__(self) -> None:
        super().__init__()
        self.lose: Callable[[Channel, Blob], bool] = lambda channel, blob: False
        self.lost = 0

    async def publish(self, channel: Channel, blob: Blob) -> None:
        if self.lose(channel, blob):
            self.lost += 1
            return
        await super().publish(channel, blob)
