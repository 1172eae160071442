"""The contract of a registry: which gateways there are, each under a lease that it renews.

**Leases.** A node stands in the registry until `lease_s` after the last `renew` that was carried out, by the registry's clock, or until it
leaves. A renewal whose answer was lost may have been carried out; repeating it is harmless.
**Names.** A node id belongs to one process at a time, told apart by `boot_id`: while one holds the lease another is refused.
**Incarnation.** Tells one life of the registry's data from another. An emptied registry forgets who was there, so who finds another
incarnation than before must not take absence for death.
**News.** Readers poll; what was renewed or left is in every read that begins afterwards.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import structlog

from app.errors import ConfigError

log = structlog.get_logger(__name__)

State = Literal["up", "draining"]
WEIGHT_MAX = 16
"""A ring has as many points as the sum of its weights says."""


class NodeIdTaken(ConfigError):
    """Another live process is registered under this node id."""

    def __init__(self, node_id: str) -> None:
        super().__init__(
            f"gateway.node_id {node_id} is in use by another process; give each gateway its own, or wait until the other one has ended."
        )


class WsUrlTaken(ConfigError):
    """Another gateway is registered at this address for clients."""

    def __init__(self, ws_url: str, node_id: str) -> None:
        super().__init__(
            f"{ws_url} is the address of gateway {node_id} already; give each its own by IM_GATEWAY__PUBLIC_WS_URL, or leave that "
            "empty behind a proxy."
        )


@dataclass(frozen=True, slots=True)
class Node:
    """One gateway process.

    `ws_url` is for clients and leads to this one only, `grpc_address` (`host:port`) is for other processes. A node of weight 2 gets
    twice the users of one of weight 1. `virtual_nodes` are those of its ring, which others must have, too.
    """

    node_id: Annotated[str, msgspec.Meta(min_length=1)]
    boot_id: Annotated[str, msgspec.Meta(pattern=r"^\S+$")]
    ws_url: Annotated[str, msgspec.Meta(pattern=r"^wss?://[^\s;,'\"]+$")]
    grpc_address: str
    weight: Annotated[int, msgspec.Meta(ge=1, le=WEIGHT_MAX)]
    state: State
    version: str
    virtual_nodes: Annotated[int, msgspec.Meta(ge=1)]

    def encode(self) -> bytes:
        """As JSON; the same bytes for equal nodes."""
        return msgspec.json.encode(self)


_decoder = msgspec.json.Decoder(Node)


def decode(value: bytes) -> Node | None:
    """A node from its JSON, fields of newer versions left out; None for anything else."""
    try:
        return _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


@dataclass(frozen=True, slots=True)
class View:
    """Who has a lease, by rising node id, and which life of the registry says so."""

    nodes: tuple[Node, ...]
    incarnation: str


class Reader:
    """Makes views of what a registry holds. Entries that are no nodes are left out, and logged when they appear."""

    def __init__(self) -> None:
        self._bad: frozenset[str] = frozenset()

    def view(self, entries: Iterable[tuple[str, bytes]], incarnation: str) -> View:
        """`entries` are (node id, JSON)."""
        nodes, bad = [], set()
        for node_id, value in entries:
            node = decode(value)
            if node is None or node.node_id != node_id:
                bad.add(node_id)
            else:
                nodes.append(node)
        if new := bad - self._bad:
            log.warning("registry_entries_ignored", entries=sorted(new))
        self._bad = frozenset(bad)
        return View(tuple(sorted(nodes, key=lambda node: node.node_id)), incarnation)


class Registry(ABC):
    """One registry as one process uses it. Every call ends within `cluster.timeout_s`; all but `stop` raise Busy while it is away."""

    @abstractmethod
    async def start(self) -> None:
        """Connect; again after a Busy. Raises ConfigError when the registry is not what the settings say."""

    @abstractmethod
    async def renew(self, node: Node) -> View:
        """Put `node` as it is now under a lease of `cluster.lease_s` from now on, and read. Raises NodeIdTaken."""

    @abstractmethod
    async def read(self) -> View:
        """Who is there."""

    @abstractmethod
    async def leases(self) -> Mapping[str, float]:
        """Seconds that the lease of each node would last without a renewal, by node id; for people, it may ask for each node."""

    @abstractmethod
    async def leave(self, node: Node) -> None:
        """End the lease, if it is still the one of this boot."""

    @abstractmethod
    async def stop(self) -> None:
        """Disconnect. Leases run on."""
