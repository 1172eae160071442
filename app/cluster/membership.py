"""Keeps a gateway registered, and what its process knows of the others current."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from app.cluster.base import Node, NodeIdTaken, Registry, WsUrlTaken
from app.cluster.ring import Ring
from app.cluster.roster import Roster
from app.errors import Busy
from app.lifecycle import Readiness
from app.metrics import Metrics
from app.sections import Cluster

log = structlog.get_logger(__name__)

PATIENCE_LEASES = 2
"""How long a node id may be taken by a process that died: its lease, and the time in which etcd notices the end of one."""
ASKED = 5
"""Others in one round, at random: enough to meet one that sees the registry, and no burden where all of many lost it."""
ROUNDS = 2
"""Of asking in a row: the registry may have come back for a peer a moment before us."""

Listener = Callable[[Ring, Ring], None]
"""Gets the old ring and the new one. Must not block or raise."""


@dataclass(frozen=True, slots=True)
class Sight:
    """How many gateways see the registry, how many do not, and how many did not answer."""

    yes: int
    no: int
    silent: int


class Peers(Protocol):
    """How a gateway asks others."""

    async def sees_registry(self, nodes: Sequence[Node]) -> Sight:
        """Ask these at once whether they see the registry. Bounded in time; does not raise."""


class Membership:
    """This process and the gateways: a gateway renews its lease and sees the others, another process just looks.

    The registry may be away for as long as it likes: the ring stays as it was. So it does when the last gateway left: nobody else is there
    to be named, and users meet again where they were when it is back. A gateway without a lease takes no new connections; it
    keeps those it has, unless a peer says that it still sees the registry: then `on_isolated` is called, once for each loss.
    """

    def __init__(
        self,
        registry: Registry,
        options: Cluster,
        metrics: Metrics,
        readiness: Readiness,
        *,
        peers: Peers | None = None,
        on_isolated: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `peers` nobody can be asked, and a gateway that lost the registry keeps its connections. `clock` gives seconds."""
        self._registry = registry
        self._options = options
        self._metrics = metrics
        self._readiness = readiness
        self._peers = peers
        self._on_isolated = on_isolated
        self._clock = clock
        self._node: Node | None = None
        self._roster = Roster(options.lease_s)
        self._listeners: list[Listener] = []
        self._lock = asyncio.Lock()
        self._seen_at = float("-inf")
        self._connected = False
        self._away = False
        self._deserted = False
        self._against = 0
        """Rounds in which a peer said that it is us."""
        self.ring = Ring((), options.virtual_nodes)
        """As this process knows it."""

    def subscribe(self, listener: Listener) -> None:
        """Tell of changes from now on."""
        self._listeners.append(listener)

    @property
    def sees_registry(self) -> bool:
        """Whether it answered within the last lease; for a gateway: whether its lease is known to last."""
        return self._clock() < self._seen_at + self._options.lease_s

    @property
    def accepting(self) -> bool:
        """Whether this gateway may take new connections."""
        return self._node is not None and self._node.state == "up" and self.sees_registry

    @property
    def deserted(self) -> bool:
        """Whether the registry says that no gateway is up: this one neither, and the ring is that of before."""
        return self._deserted

    async def start(self, node: Node) -> None:
        """Register `node`, which is this process, and know the others. Who is no gateway needs no start: `run` is enough.

        It is on the ring only when its address is known to be nobody else's. Raises Busy, ConfigError, NodeIdTaken when another process
        with this node id lives, and WsUrlTaken when one has our address.
        """
        patience = self._clock() + PATIENCE_LEASES * self._options.lease_s
        while True:
            # Nobody is sent to an address that may be another's.
            self._node = replace(node, state="draining")
            try:
                await self._look()
                self._check_address(node)
                self._node = node
                await self._look()
            except (NodeIdTaken, WsUrlTaken):
                if self._clock() > patience:
                    raise
                self._readiness.expect(
                    "startup", "waiting for the lease of an earlier process with this node id or address"
                )
                await asyncio.sleep(self._options.poll_s)
            else:
                break

    async def run(self) -> None:
        """Keep registered and current, until cancelled.

        Raises ConfigError, also NodeIdTaken when another process took over while this one slept.
        """
        pause_s = self._options.heartbeat_s if self._node else self._options.poll_s
        while True:
            due = self._clock() + pause_s * random.uniform(0.9, 1.0)  # noqa: S311 - jitter, not a secret
            await self.step()
            await asyncio.sleep(max(0.0, due - self._clock()))

    async def step(self) -> None:
        """One heartbeat, or one look; nothing happens while the registry is away. Raises as `run` does."""
        try:
            await self._look()
        except Busy as error:
            if not self._away:
                self._away = True
                log.warning("registry_away", cause=repr(error.__cause__))
            self._roster.lose_sight()
            if self._node is not None and not self.sees_registry:
                await self._be_lost(self._node, error)
        else:
            if self._away:
                self._away = False
                log.info("registry_back")
            self._against = 0
            self._readiness.clear("registry")

    async def drain(self) -> None:
        """Leave the ring at once, and stay registered."""
        if self._node is not None:
            self._node = replace(self._node, state="draining")
            with suppress(NodeIdTaken):
                await self.step()

    async def leave(self) -> None:
        """End the lease and disconnect; `run` has ended. Does not raise when the registry is away: then the lease runs out."""
        try:
            if self._node is not None:
                await self._registry.leave(self._node)
        except Busy:
            log.warning("registry_not_left")
        await self._registry.stop()

    async def _look(self) -> None:
        # One at a time: a heartbeat under way must not overwrite that we drain.
        async with self._lock:
            if not self._connected:
                self._metrics.registry_age_seconds.set_function(lambda: self._clock() - self._seen_at)
                await self._registry.start()
                self._connected = True
            began = self._clock()
            view = await (self._registry.read() if self._node is None else self._registry.renew(self._node))
            # The lease counts from when it was asked for, at the latest.
            self._seen_at = began
            self._roster.see(view, self._clock())
        up = {node_id: node for node_id, node in self._roster.nodes.items() if node.state == "up"}
        self._metrics.cluster_nodes.set(len(up))
        if not up and self.ring.nodes:
            if not self._deserted:
                log.error("gateways_gone", last=sorted(self.ring.nodes))
            self._deserted = True
            return
        self._deserted = False
        if up != self.ring.nodes:
            ours = self._options.virtual_nodes
            old, self.ring = self.ring, Ring(up.values(), ours, self.ring)
            self._metrics.cluster_ring.set(self.ring.fingerprint())
            if others := {name: node.virtual_nodes for name, node in up.items() if node.virtual_nodes != ours}:
                log.error("virtual_nodes_differ", ours=ours, others=others)
            log.info("ring_changed", nodes=sorted(up), gone=sorted(old.nodes.keys() - up.keys()))
            for listener in self._listeners:
                listener(old, self.ring)

    def _check_address(self, node: Node) -> None:
        for other in self._roster.nodes.values():
            if other.node_id != node.node_id and other.ws_url == node.ws_url:
                raise WsUrlTaken(node.ws_url, other.node_id)

    async def _be_lost(self, node: Node, error: Busy) -> None:
        """A gateway without a lease: is it the registry, or us?"""
        self._readiness.fail("registry", "no lease: no new connections", error)
        others = [other for node_id, other in self.ring.nodes.items() if node_id != node.node_id]
        if self._peers is None or not others or node.state != "up" or self._against >= ROUNDS:
            return
        sight = await self._peers.sees_registry(random.sample(others, min(ASKED, len(others))))
        # Silence proves nothing: peers that died, or a wrong address, look like that as well.
        self._against = self._against + 1 if sight.yes else 0
        if self._against == ROUNDS:
            log.error("gateway_isolated", seen_by=sight.yes, silent=sight.silent)
            self._on_isolated()
