"""What a process does while its registry comes and goes: a registry that does as it is told, and a clock that is set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from app.cluster.base import Node, NodeIdTaken, Registry, View, WsUrlTaken
from app.cluster.membership import ASKED, Membership, Sight
from app.cluster.ring import Ring
from app.errors import Busy, ConfigError
from app.lifecycle import Readiness
from app.metrics import Metrics
from app.settings import load
from tests.contract.registries import node

LEASE_S = 3.0
OWN = node("a")


class ScriptedRegistry(Registry):
    """Holds whom the test says."""

    def __init__(self) -> None:
        self.others: list[Node] = []
        self.life = "first"
        self.away = False
        self.taken_times = 0
        self.own: Node | None = None
        self.left = False
        self.started = 0
        self.wrong = False

    async def start(self) -> None:
        self._answer()
        if self.wrong:
            raise ConfigError("another password")
        self.started += 1

    async def renew(self, node: Node) -> View:
        self._answer()
        if self.taken_times:
            self.taken_times -= 1
            raise NodeIdTaken(node.node_id)
        self.own = node
        return self._answer()

    async def read(self) -> View:
        return self._answer()

    async def leases(self) -> Mapping[str, float]:
        return {node.node_id: LEASE_S for node in self._answer().nodes}

    async def leave(self, node: Node) -> None:
        self._answer()
        self.own = None

    async def stop(self) -> None:
        self.left = True

    def _answer(self) -> View:
        if self.away:
            raise Busy("away")
        return View((*([self.own] if self.own else []), *self.others), self.life)


class ScriptedPeers:
    """Answer as the test says; remember who was asked."""

    def __init__(self) -> None:
        self.sight = Sight(0, 0, 0)
        self.asked: list[list[str]] = []

    async def sees_registry(self, nodes: Sequence[Node]) -> Sight:
        self.asked.append([node.node_id for node in nodes])
        return self.sight


class Process:
    """One gateway (or, with `own=None`, an api) at times the test sets."""

    def __init__(self, own: Node | None = OWN, others: Sequence[Node] = (), *, can_ask: bool = True) -> None:
        self.registry, self.peers, self.readiness, self.metrics = (
            ScriptedRegistry(),
            ScriptedPeers(),
            Readiness(),
            Metrics(),
        )
        self.registry.others = list(others)
        self.own = own
        self.now_s = 1000.0
        self.tick_s = 0.0
        self.isolated = 0
        self.changes: list[tuple[str, str]] = []
        quick = load().cluster.model_copy(
            update={"lease_s": LEASE_S, "poll_s": 0.001, "heartbeat_s": 0.001, "virtual_nodes": 8}
        )
        self.membership = Membership(
            self.registry,
            quick,
            self.metrics,
            self.readiness,
            peers=self.peers if can_ask else None,
            on_isolated=self.on_isolated,
            clock=self.clock,
        )
        self.membership.subscribe(lambda old, new: self.changes.append((names(old), names(new))))

    def clock(self) -> float:
        self.now_s += self.tick_s
        return self.now_s

    def accepts(self) -> bool:
        return self.membership.accepting

    def on_isolated(self) -> None:
        self.isolated += 1

    async def started(self) -> "Process":
        if self.own is None:
            await self.membership.step()
        else:
            await self.membership.start(self.own)
        return self

    async def steps(self, *, over_s: float, by_s: float = 1.0) -> None:
        """Heartbeats while this time passes."""
        end_s = self.now_s + over_s
        while self.now_s < end_s:
            self.now_s += by_s
            await self.membership.step()

    @property
    def ring(self) -> str:
        return names(self.membership.ring)

    def gauge(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)


def names(ring: Ring) -> str:
    return "".join(sorted(ring.nodes))


async def test_a_gateway_is_on_the_ring_as_soon_as_it_has_started() -> None:
    gateway = await Process(others=[node("b"), node("c", state="draining")]).started()
    assert gateway.registry.own == OWN
    assert gateway.ring == "ab"
    assert gateway.accepts()
    assert gateway.changes == [("", "b"), ("b", "ab")]
    assert gateway.gauge("im_cluster_nodes") == 2
    first = gateway.gauge("im_cluster_ring")
    gateway.registry.others = [node("b", "another")]
    await gateway.steps(over_s=1)
    assert gateway.gauge("im_cluster_nodes") == 2
    assert gateway.gauge("im_cluster_ring") not in (0, first)


async def test_an_api_knows_the_gateways_and_registers_nothing() -> None:
    api = await Process(None, [node("b")]).started()
    assert api.registry.own is None
    assert api.ring == "b"
    assert not api.accepts()
    api.registry.others = [node("c")]
    await api.steps(over_s=1)
    assert api.ring == "c"
    assert api.changes == [("", "b"), ("b", "c")]


@pytest.mark.parametrize("left", [[], [node("b", state="draining")]])
async def test_the_last_gateways_are_remembered(left: list[Node], caplog: pytest.LogCaptureFixture) -> None:
    api = await Process(None, [node("b"), node("c")]).started()
    api.registry.others = left
    await api.steps(over_s=60)
    assert api.ring == "bc"
    assert api.gauge("im_cluster_nodes") == 0
    assert caplog.text.count("gateways_gone") == 1
    api.registry.others = [node("c")]
    await api.steps(over_s=1)
    assert api.changes == [("", "bc"), ("bc", "c")]


async def test_rings_that_differ_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    same, other = (replace(node(name), virtual_nodes=points) for name, points in (("b", 8), ("c", 16)))
    await (await Process(None, [node("a"), same, other]).started()).steps(over_s=5)
    assert caplog.text.count("virtual_nodes_differ") == caplog.text.count("'others': {'c': 16}") == 1


async def test_listeners_hear_of_changes_only() -> None:
    gateway = await Process().started()
    await gateway.steps(over_s=5)
    assert gateway.changes == [("", "a")]
    gateway.registry.others = [node("b")]
    await gateway.steps(over_s=5)
    gateway.registry.others = [node("b", state="draining")]
    await gateway.steps(over_s=5)
    assert gateway.changes == [("", "a"), ("a", "ab"), ("ab", "a")]


async def test_who_drains_leaves_the_ring_at_once_and_is_told_so() -> None:
    gateway = await Process(others=[node("b")]).started()
    await gateway.membership.drain()
    assert gateway.registry.own == node("a", state="draining")
    assert gateway.ring == "b"
    assert not gateway.accepts()
    await gateway.membership.leave()
    assert (await gateway.registry.read()).nodes == (node("b"),)
    assert gateway.registry.left


@pytest.mark.parametrize("away", [True, False])
async def test_leaving_never_fails(away: bool) -> None:
    gateway = await Process().started()
    gateway.registry.away = away
    await gateway.membership.drain()
    await gateway.membership.leave()
    assert gateway.registry.left


async def test_a_process_waits_for_the_lease_of_the_one_before_it() -> None:
    gateway = Process()
    gateway.registry.taken_times = 3
    await gateway.started()
    assert gateway.ring == "a"


async def test_a_name_in_use_is_an_error_after_some_leases() -> None:
    gateway = Process()
    gateway.registry.taken_times = 1_000_000
    gateway.tick_s = 1
    with pytest.raises(NodeIdTaken):
        await gateway.started()


async def test_an_address_in_use_is_an_error_after_some_leases() -> None:
    gateway = Process(others=[node("b", ws_url=OWN.ws_url)])
    gateway.tick_s = 1
    with pytest.raises(WsUrlTaken, match="is the address of gateway b already"):
        await gateway.started()
    assert gateway.changes == [("", "b")]
    assert gateway.registry.own == node("a", state="draining")
    gateway.registry.others = [node("b")]
    await gateway.started()
    assert gateway.ring == "ab"


async def test_a_gateway_whose_name_was_taken_while_it_slept_ends() -> None:
    gateway = await Process().started()
    gateway.registry.taken_times = 1
    with pytest.raises(NodeIdTaken):
        await gateway.membership.run()


async def test_a_registry_away_at_the_start_is_waited_for_by_others() -> None:
    gateway = Process()
    gateway.registry.away = True
    with pytest.raises(Busy):
        await gateway.started()
    gateway.registry.away = False
    await gateway.started()
    assert gateway.ring == "a"


async def test_who_only_looks_goes_on_without_the_registry_until_it_is_there() -> None:
    api = Process(None, [node("b")])
    api.registry.away = True
    await api.started()
    await api.steps(over_s=60)
    assert (api.ring, api.registry.started, api.gauge("im_registry_age_seconds")) == ("", 0, float("inf"))
    api.readiness.expect("registry", "waiting for the registry")
    api.registry.away = False
    await api.steps(over_s=2)
    assert (api.ring, api.registry.started) == ("b", 1)
    assert api.readiness.reasons == {}


async def test_a_registry_that_refuses_us_is_a_sentence() -> None:
    api = Process(None)
    api.registry.wrong = True
    with pytest.raises(ConfigError, match="another password"):
        await api.membership.run()


async def test_a_gateway_takes_new_connections_until_its_lease_ends() -> None:
    gateway = await Process(others=[node("b")]).started()
    gateway.peers.sight = Sight(0, 1, 0)
    gateway.registry.away = True
    await gateway.steps(over_s=2)
    assert gateway.accepts()
    assert gateway.peers.asked == []
    gateway.now_s += 1
    assert not gateway.accepts()
    await gateway.membership.step()
    assert gateway.peers.asked == [["b"]]
    assert gateway.readiness.reasons == {"registry": "no lease: no new connections"}
    gateway.registry.away = False
    await gateway.membership.step()
    assert gateway.accepts()
    assert gateway.readiness.reasons == {}


async def test_when_all_lost_the_registry_everything_stays() -> None:
    gateway = await Process(others=[node("b"), node("c")]).started()
    gateway.peers.sight = Sight(0, 1, 1)
    gateway.registry.away = True
    await gateway.steps(over_s=600)
    assert gateway.ring == "abc"
    assert gateway.isolated == 0
    # It comes back empty, then one after the other.
    gateway.registry.away, gateway.registry.life, gateway.registry.own = False, "second", None
    gateway.registry.others = []
    await gateway.steps(over_s=1)
    gateway.registry.others = [node("b")]
    await gateway.steps(over_s=1)
    assert gateway.accepts()
    assert gateway.ring == "abc"
    await gateway.steps(over_s=2)
    assert gateway.changes == [("", "bc"), ("bc", "abc"), ("abc", "ab")]


@pytest.mark.parametrize("sight", [Sight(1, 5, 0), Sight(1, 0, 1)])
async def test_who_alone_lost_the_registry_is_told_once(sight: Sight) -> None:
    gateway = await Process(others=[node("b"), node("c")]).started()
    gateway.peers.sight = sight
    gateway.registry.away = True
    await gateway.steps(over_s=3)
    assert gateway.isolated == 0, "a peer may have seen it a moment earlier than we"
    await gateway.steps(over_s=60)
    assert gateway.isolated == 1
    gateway.registry.away = False
    await gateway.steps(over_s=1)
    assert gateway.accepts()
    assert gateway.ring == "abc"
    gateway.registry.away = True
    await gateway.steps(over_s=60)
    assert gateway.isolated == 2


async def test_peers_that_are_silent_prove_nothing() -> None:
    gateway = await Process(others=[node("b"), node("c")]).started()
    gateway.peers.sight = Sight(0, 0, 2)
    gateway.registry.away = True
    await gateway.steps(over_s=600)
    assert gateway.isolated == 0
    assert len(gateway.peers.asked) > 500, "one of them may answer yet"


async def test_a_few_of_many_are_asked_others_each_time() -> None:
    many = [node(f"n{number}") for number in range(100)]
    gateway = await Process(others=many).started()
    gateway.registry.away = True
    await gateway.steps(over_s=30)
    assert {len(asked) for asked in gateway.peers.asked} == {ASKED}
    assert len({name for asked in gateway.peers.asked for name in asked}) > 2 * ASKED


async def test_a_registry_that_comes_back_to_a_peer_first_isolates_nobody() -> None:
    gateway = await Process(others=[node("b")]).started()
    gateway.peers.sight = Sight(0, 1, 0)
    gateway.registry.away = True
    await gateway.steps(over_s=30)
    gateway.peers.sight = Sight(1, 0, 0)
    await gateway.steps(over_s=1)
    gateway.registry.away = False
    await gateway.steps(over_s=30)
    assert gateway.isolated == 0


@pytest.mark.parametrize("others", [[], [node("b", state="draining")]])
async def test_one_gateway_alone_keeps_its_connections(others: list[Node]) -> None:
    gateway = await Process(others=others).started()
    gateway.registry.away = True
    await gateway.steps(over_s=600)
    assert gateway.peers.asked == []
    assert gateway.isolated == 0
    assert gateway.ring == "a"


async def test_without_a_way_to_ask_connections_are_kept() -> None:
    gateway = await Process(others=[node("b")], can_ask=False).started()
    gateway.registry.away = True
    await gateway.steps(over_s=600)
    assert gateway.isolated == 0
    assert not gateway.accepts()


async def test_the_age_of_what_is_known_is_measured(caplog: pytest.LogCaptureFixture) -> None:
    api = await Process(None, [node("b")]).started()
    api.registry.away = True
    await api.steps(over_s=10)
    assert api.gauge("im_registry_age_seconds") == 10
    assert api.ring == "b"
    assert api.readiness.reasons == {}, "an api goes on"
    api.registry.away = False
    await api.steps(over_s=1)
    assert api.gauge("im_registry_age_seconds") == 0
    assert caplog.text.count("registry_away") == 1
    assert caplog.text.count("registry_back") == 1
