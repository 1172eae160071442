"""Who counts as there, so that a registry that was away or lost its data changes nothing by itself."""

from collections.abc import Mapping

from app.cluster.base import Node, View

OUTAGE_PART = 1 / 3
"""Of a lease: so much of the time to come back one outage uses up at most, because a node that lives tries that often."""


class Roster:
    """The nodes of the last view, and of earlier ones those that still may come back.

    Absence from a view means that a lease ended, but for two cases: we did not see the registry for a while (nobody could renew), or it
    is another incarnation (it forgot everybody). Then each node that was there has `lease_s` to come back. However long we do not see the
    registry uses up only a part of that, and however often it is away, the dead are forgotten after some views.
    """

    def __init__(self, lease_s: float) -> None:
        self.nodes: Mapping[str, Node] = {}
        self._lease_s = lease_s
        self._awaited: Mapping[str, float] = {}
        """Seconds left to come back."""
        self._incarnation = ""
        self._seen_at = float("-inf")
        self._lost = False

    def see(self, view: View, now_s: float) -> None:
        """A view that was read at `now_s`, by a monotonic clock."""
        fresh = dict.fromkeys(self.nodes, self._lease_s)
        passed_s = now_s - self._seen_at
        if view.incarnation != self._incarnation:
            awaited = fresh
        elif self._lost or passed_s > self._lease_s:
            awaited = fresh | self._less(min(passed_s, self._lease_s * OUTAGE_PART))
        else:
            awaited = self._less(passed_s)
        here = {node.node_id: node for node in view.nodes}
        self._awaited = {node_id: left_s for node_id, left_s in awaited.items() if left_s > 0 and node_id not in here}
        self.nodes = {node_id: self.nodes[node_id] for node_id in self._awaited} | here
        self._incarnation, self._seen_at, self._lost = view.incarnation, now_s, False

    def lose_sight(self) -> None:
        """The registry did not answer."""
        self._lost = True

    def _less(self, passed_s: float) -> dict[str, float]:
        return {node_id: left_s - passed_s for node_id, left_s in self._awaited.items()}
