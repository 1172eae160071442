"""Where users connect: from a configured list, or from the ring of registered gateways."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from urllib.parse import urlsplit

from app.cluster.ring import Ring


class Directory(ABC):
    """Says where a user connects, the same in every process."""

    @abstractmethod
    def place_of(self, user_id: int, not_node: str | None = None) -> tuple[str, str]:
        """(URL, node id) of the gateway of a user; any other than `not_node`, where there is another.

        No URL: where the caller asked. No node: there is none now, and the URL is that of a proxy or nothing.
        """

    def has_others(self, node_id: str) -> bool:
        """Whether there is another gateway than this one."""
        return self.place_of(0, not_node=node_id)[1] not in ("", node_id)

    @abstractmethod
    def origins(self) -> Sequence[str]:
        """`scheme://host:port` of each gateway, sorted."""


class ListDirectory(Directory):
    """WebSocket URLs by node id, at least one; an empty URL is unknown."""

    def __init__(self, gateways: Mapping[str, str], origins: Sequence[str] = ()) -> None:
        """`origins` are named beside those of the gateways."""
        self._gateways = gateways
        self._origins = sorted({*origins, *_origins(gateways.values())})

    def place_of(self, user_id: int, not_node: str | None = None) -> tuple[str, str]:
        """Rendezvous hashing (Thaler and Ravishankar, 1998): when a gateway goes, only its own users move, evenly to all others."""
        if not_node is not None and (others := [node for node in self._gateways if node != not_node]):
            # Any of them: the next best may be dead as well.
            node = random.choice(others)  # noqa: S311 - spreads users, guards nothing
            return self._gateways[node], node
        node = max(self._gateways, key=lambda node: blake2b(f"{node} {user_id}".encode(), digest_size=8).digest())
        return self._gateways[node], node

    def origins(self) -> Sequence[str]:
        """See Directory."""
        return self._origins


class RingDirectory(Directory):
    """Follows the ring. Who failed at a gateway gets the next one on it: all devices of a user meet again there."""

    def __init__(self, url: str, origins: Sequence[str]) -> None:
        """`url` is named while there is no gateway: that of a proxy before them, or nothing. `origins` are named always."""
        self._url = url
        self._more = origins
        self.on_ring(Ring((), 1), Ring((), 1))

    def on_ring(self, _: Ring, ring: Ring) -> None:
        """The ring changed."""
        self._ring = ring
        urls = [self._url, *(node.ws_url for node in ring.nodes.values())]
        self._origins = sorted({*self._more, *_origins(urls)})

    def place_of(self, user_id: int, not_node: str | None = None) -> tuple[str, str]:
        """See Directory."""
        node = self._ring.node_of(user_id, without=not_node)
        return (self._url, "") if node is None else (node.ws_url, node.node_id)

    def origins(self) -> Sequence[str]:
        """See Directory."""
        return self._origins


def _origins(urls: Iterable[str]) -> list[str]:
    return sorted({f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, filter(None, urls))})
