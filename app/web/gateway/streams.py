"""Watches the numbers of every publisher: a hole means something was missed."""

from collections import OrderedDict
from typing import Literal

from app.delivery.base import Channel
from app.metrics import Metrics

Cause = Literal["missed", "new_publisher", "reconnected", "cut"]

MAX_PUBLISHERS = 4096
"""Three channels of every process that ever published, restarts included; the longest silent are forgotten."""


class Streams:
    """The newest number seen, by publisher and channel."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._newest: OrderedDict[tuple[str, Channel], int] = OrderedDict()

    def see(self, channel: Channel, publisher: str, number: int) -> Cause | None:
        """Take note of a blob; returns why the store must be asked, or None when nothing is missing."""
        key = (publisher, channel)
        newest = self._newest.get(key)
        self._newest[key] = max(number, newest or 0)
        self._newest.move_to_end(key)
        if newest is None:
            if len(self._newest) > MAX_PUBLISHERS:
                self._newest.popitem(last=False)
            # The first that was ever pushed to this node; that the publisher is new shows on the other channels.
            return None if channel is Channel.NODE and number == 1 else "new_publisher"
        if number > newest + 1:
            self._metrics.blobs_missed.labels(channel.name.lower()).inc(number - newest - 1)
            return "missed"
        return None
