"""A delivery adapter that loses what a test tells it to lose; everything else passes as in one process."""

import asyncio
from collections import Counter
from collections.abc import Callable
from types import MappingProxyType

from app.delivery.base import ByNode, Channel
from app.delivery.memory import MemoryDelivery
from app.protocol.magpie_pb2 import Blob


class LossyDelivery(MemoryDelivery):
    """Drops the blobs for which `lose` is true, without telling anybody but by the hole in their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.lose: Callable[[Channel, Blob], bool] = lambda channel, blob: False
        self.lost = 0
        self.holes = True
        """False: what follows is numbered as if nothing was lost, so that only what it says can tell."""
        self.passed: Counter[Channel] = Counter()
        self._closed: Counter[tuple[Channel, str]] = Counter()

    async def publish(self, channel: Channel, blob: Blob, answers: ByNode = MappingProxyType({})) -> None:
        stream = (channel, blob.publisher)
        if self.lose(channel, blob):
            self.lost += 1
            if not self.holes:
                self._closed[stream] += 1
            await self.answer(answers)
            return
        if self._closed[stream]:
            numbered = Blob()
            numbered.CopyFrom(blob)
            numbered.number -= self._closed[stream]
            blob = numbered
        await super().publish(channel, blob, answers)
        self.passed[channel] += 1

    async def without_holes(self) -> None:
        """From now on nothing is found because numbers are missing, nor because a publisher is new."""
        self.holes = False
        async with asyncio.timeout(5):
            while min(self.passed[Channel.GROUP], self.passed[Channel.CONTROL]) < 2:
                await asyncio.sleep(0.05)
