"""Events without seq that clients cause (typing, read marks): collected for a moment, then published in one blob. Shed when too many."""

import asyncio
from collections.abc import Sequence

from app.delivery.publisher import Publisher
from app.metrics import Metrics
from app.protocol import frames
from app.protocol.magpie_pb2 import Event

INTERVAL_S = 0.05
MAX_WAITING = 2000
"""Per interval; at about 100 bytes each one blob stays under 256 KiB."""


class Notices:
    """Waiting notices by kind, group and user: repeats within an interval are one."""

    def __init__(self, publisher: Publisher, metrics: Metrics) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._waiting: dict[tuple[str, int, int], int | None] = {}
        self._wake_up = asyncio.Event()

    def add(self, kind: str, group_id: int, user_id: int, seq: int | None = None) -> None:
        """Publish `{type: kind, group_id, user_id, seq?}` to the group soon, or shed it."""
        if len(self._waiting) >= MAX_WAITING:
            self._metrics.events_shed.inc()
            return
        self._waiting[kind, group_id, user_id] = seq
        self._wake_up.set()

    async def on_read(self, moved: Sequence[tuple[int, int, int]]) -> None:
        """Read marks moved: (group_id, user_id, seq) each."""
        for group_id, user_id, seq in moved:
            self.add("read", group_id, user_id, seq)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._wake_up.wait()
            self._wake_up.clear()
            await asyncio.sleep(INTERVAL_S)
            waiting, self._waiting = self._waiting, {}
            await self._publisher.events([_event(*key, seq) for key, seq in waiting.items()])


def _event(kind: str, group_id: int, user_id: int, seq: int | None) -> Event:
    fields: dict[str, object] = {"group_id": str(group_id), "user_id": str(user_id)}
    if seq is not None:
        fields["seq"] = seq
    return Event(group_id=group_id, frame=frames.event(kind, fields), droppable=True)
