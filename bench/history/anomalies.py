"""The anomalies, each with its own name. A report without any means that the recorded clients saw the contract kept.

lost       acked or shown (a push follows the commit), yet absent from a history read later
duplicate  one (group, sender, client_msg_id) with two seqs
reorder    accepted messages of one connection to one group not in sending order; or a send acked before another was begun has
           the higher seq; or messages shown in another order than seq
divergent  the same seq with different messages
gap        a hole in the seqs of a history
phantom    shown, but never sent
aborted    every attempt answered with outcome `none`, yet shown
unseen     in history, neither pushed nor pulled within the time an online client may wait
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, get_args

Kind = Literal["lost", "duplicate", "reorder", "divergent", "gap", "phantom", "aborted", "unseen"]
KINDS: tuple[Kind, ...] = get_args(Kind)
EXAMPLES_MAX = 20
"""Examples kept per kind; all are counted."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One breach, with what is needed to find it in the file."""

    kind: Kind
    group: int
    detail: str


@dataclass(slots=True)
class Report:
    """What a check found."""

    counts: Counter[Kind] = field(default_factory=Counter)
    examples: list[Anomaly] = field(default_factory=list)
    events: int = 0
    sends: int = 0
    """Distinct messages, however often each was tried."""
    acked: int = 0
    shown: int = 0
    """Messages that reached clients, counted once per client."""
    groups: int = 0
    unread_groups: int = 0
    """Groups with sends whose history nobody read at the end: not judged for `lost` and `gap`."""
    unjudged: int = 0
    """Deliveries still outstanding when the recording ended too early to call them unseen."""

    @property
    def kinds(self) -> set[Kind]:
        """The anomalies found."""
        return {kind for kind, count in self.counts.items() if count}

    @property
    def clean(self) -> bool:
        """Nothing found, and nothing left unjudged."""
        return not self.kinds and not self.unread_groups and not self.unjudged

    def add(self, kind: Kind, group: int, detail: str) -> None:
        """Count an anomaly and keep it as an example while there are few."""
        self.counts[kind] += 1
        if self.counts[kind] <= EXAMPLES_MAX:
            self.examples.append(Anomaly(kind, group, detail))
