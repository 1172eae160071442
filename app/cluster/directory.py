"""Which gateway a user connects to, from a configured list."""

import random
from collections.abc import Mapping
from hashlib import blake2b
from urllib.parse import urlsplit


class Directory:
    """Gateways by node id, with the WebSocket URL that clients use; empty: the address of the caller's own request. At least one."""

    def __init__(self, gateways: Mapping[str, str]) -> None:
        self._gateways = gateways

    def origins(self) -> list[str]:
        """`scheme://host:port` of each, sorted."""
        return sorted({f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, self._gateways.values())})

    def place_of(self, user_id: int, not_node: str | None = None) -> tuple[str, str]:
        """(URL, node id) of the gateway of a user, the same wherever it is computed; any other than `not_node`, where there is another.

        Rendezvous hashing (Thaler and Ravishankar, 1998): when a gateway goes, only its own users move, evenly to all others.
        """
        if not_node is not None and (others := [node for node in self._gateways if node != not_node]):
            # Any of them: the next best may be dead as well.
            node = random.choice(others)  # noqa: S311 - spreads users, guards nothing
            return self._gateways[node], node
        node = max(self._gateways, key=lambda node: blake2b(f"{node} {user_id}".encode(), digest_size=8).digest())
        return self._gateways[node], node
