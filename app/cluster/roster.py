"""Who counts as there, so that a registry that was away or lost its data changes nothing by itself."""

from collections.abc import Mapping

from app.cluster.base import Node, View


class Roster:
    """The nodes of the last view, and of earlier ones those that still may come back.

    Absence from a view means that a lease ended, but for two cases: we did not see the registry for a while (nobody could renew), or it
    is another incarnation (it forgot everybody). Then each node that was there has `lease_s` to come back. That time runs only while we
    see the registry, so a second outage does not use it up, and an outage every now and then does not keep the dead forever.
    """

    def __init__(self, lease_s: float) -> None:
        self.nodes: Mapping[str, Node] = {}
        self._lease_s = lease_s
        self._awaited: Mapping[str, float] = {}
        """Seconds left to come back."""
        self._incarnation = ""
        self._seen_at: float | None = None

    def see(self, view: View, now_s: float) -> None:
        """A view that was read at `now_s`, by a monotonic clock."""
        fresh = dict.fromkeys(self.nodes, self._lease_s)
        if view.incarnation != self._incarnation:
            awaited = fresh
        elif self._seen_at is None or now_s - self._seen_at > self._lease_s:
            awaited = fresh | dict(self._awaited)
        else:
            passed_s = now_s - self._seen_at
            awaited = {node_id: left_s - passed_s for node_id, left_s in self._awaited.items()}
        here = {node.node_id: node for node in view.nodes}
        self._awaited = {node_id: left_s for node_id, left_s in awaited.items() if left_s > 0 and node_id not in here}
        self.nodes = {node_id: self.nodes[node_id] for node_id in self._awaited} | here
        self._incarnation, self._seen_at = view.incarnation, now_s

    def lose_sight(self) -> None:
        """The registry did not answer."""
        self._seen_at = None
