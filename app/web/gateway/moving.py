"""Sends users to the gateway they belong to after the ring changed; and everybody away, when this gateway alone lost the registry."""

import asyncio
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Protocol

from app.cluster.ring import Ring
from app.sections import Cluster as Options
from app.web.gateway.connection import Connection
from app.web.gateway.drain import Drainer
from app.web.gateway.hub import Hub

DOUBLINGS_MAX = 6
"""A gateway that comes back again and again gets users after 64 times the settling time at most."""
AGAIN_S = 1.0
"""A gateway that lost the registry looks this often whether it may move users, at most: a look at 10,000 takes 30 ms."""
FORGIVEN_S = 3600.0
"""After so long an absence is not held against a gateway any more."""
LOOKED_AT_PER_TURN = 1000
"""A look at the ring takes 3 µs: so many keep a turn of the loop short."""


class Cluster(Protocol):
    """The membership, as far as moving users needs it."""

    ring: Ring

    @property
    def accepting(self) -> bool:
        """Whether this gateway may take users."""


class Newcomers:
    """Gateways that came to the ring; they get users of others when they have stayed for `settle_s`, twice as long after each absence."""

    def __init__(self, settle_s: float, clock: Callable[[], float]) -> None:
        self._settle_s = settle_s
        self._clock = clock
        self._due: dict[str, float] = {}
        self._absences: dict[str, tuple[int, float]] = {}
        """How often a gateway went, and when it last did."""

    def on_ring(self, old: Ring, ring: Ring) -> None:
        """The ring changed. A process that replaced another under its name is new."""
        now = self._clock()
        self._absences = {name: (times, at) for name, (times, at) in self._absences.items() if now - at < FORGIVEN_S}
        for name, node in old.nodes.items():
            if ring.nodes.get(name) != node:
                self._due.pop(name, None)
                self._absences[name] = (self._absences.get(name, (0, now))[0] + 1, now)
        for name, node in ring.nodes.items():
            if old.nodes.get(name) != node:
                times, _ = self._absences.get(name, (0, now))
                self._due[name] = now + self._settle_s * 2 ** min(times, DOUBLINGS_MAX)

    def put_back(self, names: Iterable[str]) -> None:
        """Users who belong to these could not be moved now."""
        due = self._clock() + max(self._settle_s, AGAIN_S)
        self._due = dict.fromkeys(names, due) | self._due

    def waits(self, node_id: str) -> bool:
        """Whether it has not stayed long enough yet."""
        return node_id in self._due

    def wait_s(self) -> float | None:
        """Until the next one has; None: there is none."""
        return max(0.0, min(self._due.values()) - self._clock()) if self._due else None

    def take(self) -> set[str]:
        """Those that have by now; each is taken once."""
        taken = {name for name, due in self._due.items() if due <= self._clock()}
        for name in taken:
            del self._due[name]
        return taken


class Mover:
    """Asks users who belong to a newcomer to go there, gently: each of them once, and only while that holds. Whose turn comes while this
    gateway does not know who is there gets another.

    Who came here though they belong elsewhere stays: they were refused there, or could not reach it, and would come back.
    """

    def __init__(
        self,
        hub: Hub,
        drainer: Drainer,
        cluster: Cluster,
        node_id: str,
        options: Options,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._hub = hub
        self._drainer = drainer
        self._cluster = cluster
        self._node_id = node_id
        self._options = options
        self._newcomers = Newcomers(options.move_settle_s, clock)
        self._changed = asyncio.Event()

    def on_ring(self, old: Ring, ring: Ring) -> None:
        """The ring changed."""
        self._newcomers.on_ring(old, ring)
        self._changed.set()

    async def run(self) -> None:
        """Move until cancelled."""
        while True:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), self._newcomers.wait_s())
            except TimeoutError:
                await self._move_to(self._newcomers.take() - {self._node_id})

    async def _move_to(self, newcomers: set[str]) -> None:
        missed: set[str] = set()

        def belongs_there(connection: Connection) -> bool:
            """Asked again at its turn: the ring may have changed back, or this gateway may not know any more."""
            owner = self._cluster.ring.node_of(connection.principal.user_id)
            if owner is None or owner.node_id not in newcomers or self._newcomers.waits(owner.node_id):
                return False
            if not self._cluster.accepting:
                missed.add(owner.node_id)
            return self._cluster.accepting

        found = []
        for index, connection in enumerate(list(self._hub.connections)):
            if index % LOOKED_AT_PER_TURN == LOOKED_AT_PER_TURN - 1:
                await asyncio.sleep(0)
            if belongs_there(connection):
                found.append(connection)
        if found:
            await self._drainer.drain("ring", found, self._options.move_over_s, belongs_there)
        self._newcomers.put_back(missed)


class Isolation:
    """This gateway alone lost the registry, and the others send users elsewhere: it lets everybody go until the registry comes back."""

    def __init__(self, hub: Hub, drainer: Drainer, accepting: Callable[[], bool], within_s: float) -> None:
        self._hub = hub
        self._drainer = drainer
        self._accepting = accepting
        self._within_s = within_s
        self._began = asyncio.Event()

    def begin(self) -> None:
        """It was found out."""
        self._began.set()

    async def run(self) -> None:
        """Let go when it begins, until cancelled."""
        while True:
            await self._began.wait()
            self._began.clear()
            await self._drainer.drain(
                "isolated", list(self._hub.connections), self._within_s, lambda _: not self._accepting()
            )
