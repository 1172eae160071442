"""The client rules of one group as a state machine without I/O: whatever is lost, repeated or reordered on the way down, the reader
gets every message once and in order.

`have` is the highest seq below which nothing is missing. A packet that follows it is taken; a later one is kept aside while
`(have, prev_seq]` is pulled. Only pulling closes a gap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.protocol.frames import Message


@dataclass(frozen=True, slots=True)
class Pull:
    """A question under way: messages after `after`."""

    after: int
    announced: int
    """How many gaps had been announced when it was asked; later ones need a pull of their own."""


@dataclass(frozen=True, slots=True)
class _Packet:
    prev_seq: int
    items: tuple[Message, ...]


class Cursor:
    """The position in one group. Methods return the messages that became readable, in order."""

    def __init__(self, have: int, *, max_aside: int) -> None:
        self.have = have
        self._max_aside = max_aside
        self._aside: list[_Packet] = []
        self._open = False
        self._gap_to = 0
        self._announced = 0

    @property
    def wants_pull(self) -> bool:
        """Whether something is known to be missing."""
        return self._open or self._gap_to > 0 or bool(self._aside)

    @property
    def aside(self) -> int:
        """Messages kept aside."""
        return sum(len(packet.items) for packet in self._aside)

    def on_packet(self, prev_seq: int, items: Sequence[Message]) -> list[Message]:
        """Pushed messages; the first one follows `prev_seq`."""
        if prev_seq <= self.have:
            return self._take_dense(items) + self._take_aside()
        if self.aside + len(items) > self._max_aside:
            self._announce(None)
        elif all(packet.prev_seq != prev_seq or len(packet.items) < len(items) for packet in self._aside):
            self._aside.append(_Packet(prev_seq, tuple(items)))
            self._aside.sort(key=lambda packet: packet.prev_seq)
        return []

    def on_gap(self, to_seq: int | None) -> None:
        """Messages up to `to_seq` (None: up to wherever the group is now) were not pushed."""
        if to_seq is None or to_seq > self.have:
            self._announce(to_seq)

    def begin_pull(self) -> Pull:
        """What to ask for now."""
        return Pull(self.have, self._announced)

    def on_pulled(self, pull: Pull, items: Iterable[Message], *, complete: bool) -> list[Message]:
        """The stored messages after `pull.after`, rising; `complete`: there were no more when the answer was made."""
        released = []
        for item in items:
            # A pull is the truth: what it leaves out does not exist.
            if item.seq > self.have:
                self.have = item.seq
                released.append(item)
        if self.have >= self._gap_to or (complete and pull.announced == self._announced):
            self._gap_to = 0
        if complete and pull.announced == self._announced:
            self._open = False
        return released + self._take_aside()

    def _announce(self, to_seq: int | None) -> None:
        self._announced += 1
        if to_seq is None:
            self._open = True
        else:
            self._gap_to = max(self._gap_to, to_seq)

    def _take_dense(self, items: Iterable[Message]) -> list[Message]:
        released = []
        for item in items:
            if item.seq > self.have + 1:
                # Seqs are dense and packets contiguous; one with a hole is not trusted.
                self._announce(None)
                break
            if item.seq == self.have + 1:
                self.have = item.seq
                released.append(item)
        return released

    def _take_aside(self) -> list[Message]:
        released = []
        while self._aside and self._aside[0].prev_seq <= self.have:
            released += self._take_dense(self._aside.pop(0).items)
        return released
