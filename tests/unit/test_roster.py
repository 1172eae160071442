"""Who counts as there while the registry comes and goes."""

from app.cluster.base import Node, View
from app.cluster.roster import Roster
from tests.contract.registries import node

LEASE_S = 3.0


class Seen:
    """A roster that is told views as time passes."""

    def __init__(self) -> None:
        self.roster = Roster(LEASE_S)
        self.now_s = 1000.0

    def sees(self, *names: str, life: str = "first", after_s: float = 0.5) -> str:
        self.now_s += after_s
        self.roster.see(View(tuple(map(node, names)), life), self.now_s)
        return self.names

    def loses(self, for_s: float = 0.5) -> None:
        self.now_s += for_s
        self.roster.lose_sight()

    @property
    def names(self) -> str:
        return "".join(sorted(self.roster.nodes))


def test_who_is_gone_from_the_view_is_gone() -> None:
    seen = Seen()
    assert seen.sees("a", "b") == "ab"
    assert seen.sees("a") == "a"
    assert seen.sees("a", "c") == "ac"


def test_a_node_is_as_the_last_view_says() -> None:
    roster, other = Roster(LEASE_S), node("a", "another", state="draining")
    roster.see(View((node("a"),), "first"), 1.0)
    roster.see(View((other,), "first"), 2.0)
    assert roster.nodes == {"a": other}


def test_a_registry_that_forgot_everybody_drops_nobody_who_comes_back() -> None:
    seen = Seen()
    seen.sees("a", "b", "c")
    assert seen.sees(life="second") == "abc"
    assert seen.sees("a", life="second", after_s=1) == "abc"
    assert seen.sees("a", "b", life="second", after_s=1.5) == "abc"
    assert seen.sees("a", "b", life="second", after_s=1) == "ab"


def test_who_came_back_and_leaves_is_gone_at_once() -> None:
    seen = Seen()
    seen.sees("a", "b")
    assert seen.sees("a", "b", life="second") == "ab"
    assert seen.sees("a", life="second") == "a"


def test_who_could_not_renew_while_the_registry_was_away_has_a_lease_to_come_back() -> None:
    seen = Seen()
    seen.sees("a", "b")
    seen.loses(for_s=60)
    assert seen.names == "ab"
    assert seen.sees("a", after_s=60) == "ab"
    assert seen.sees("a", after_s=2.9) == "ab"
    assert seen.sees("a", after_s=0.2) == "a"


def test_a_second_outage_does_not_use_up_the_time_to_come_back() -> None:
    seen = Seen()
    seen.sees("a", "b")
    seen.sees(life="second")
    seen.loses()
    assert seen.sees(life="second", after_s=60) == "ab"
    assert seen.sees("a", "b", life="second") == "ab"


def test_outages_every_now_and_then_do_not_keep_the_dead() -> None:
    seen = Seen()
    seen.sees("a", "b")
    for _ in range(4):
        seen.loses()
        seen.sees("a")
        seen.sees("a", after_s=1)
    assert seen.names == "a"


def test_a_process_that_slept_does_not_take_absence_for_death() -> None:
    seen = Seen()
    seen.sees("a", "b")
    assert seen.sees("a", after_s=3600) == "ab"
    assert seen.sees("a", after_s=3) == "a"


def test_an_emptied_registry_that_is_emptied_again_gives_everybody_the_whole_time_again() -> None:
    seen = Seen()
    seen.sees("a", "b")
    seen.sees(life="second")
    assert seen.sees(life="second", after_s=2.9) == "ab"
    assert seen.sees(life="third", after_s=0.05) == "ab"
    assert seen.sees("a", life="third", after_s=2.9) == "ab"
    assert seen.sees("a", life="third", after_s=0.2) == "a"


def test_the_first_view_is_taken_as_it_is() -> None:
    nodes: dict[str, Node] = {}
    assert Roster(LEASE_S).nodes == nodes
    assert Seen().sees() == ""
