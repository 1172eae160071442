"""Who counts as there while the registry comes and goes."""

import pytest

from app.cluster.base import Node, View
from app.cluster.roster import Roster
from tests.contract.registries import node

LEASE_S = 3.0


class Seen:
    """A roster that is told views as time passes."""

    def __init__(self) -> None:
        self.roster = Roster(LEASE_S)
        self.now_s = 1000.0

    def sees(self, *nodes: str | Node, life: str = "first", after_s: float = 0.5) -> str:
        self.now_s += after_s
        view = View(tuple(node(each) if isinstance(each, str) else each for each in nodes), life)
        self.roster.see(view, self.now_s)
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
    seen, other = Seen(), node("a", "another", state="draining")
    seen.sees("a")
    seen.sees(other)
    assert seen.roster.nodes == {"a": other}


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


@pytest.mark.parametrize("away_s", [0.5, 60])
def test_a_registry_that_fails_every_other_time_does_not_keep_the_dead(away_s: float) -> None:
    seen = Seen()
    seen.sees("a", "b")
    for _ in range(4):
        assert seen.names == "ab"
        seen.loses(away_s)
        seen.sees("a")
    assert seen.names == "a"


def test_a_process_that_slept_does_not_take_absence_for_death() -> None:
    seen = Seen()
    seen.sees("a", "b")
    assert seen.sees("a", after_s=3600) == "ab"
    assert seen.sees("a", after_s=2.9) == "ab"
    assert seen.sees("a", after_s=0.2) == "a"


def test_an_emptied_registry_that_is_emptied_again_gives_everybody_the_whole_time_again() -> None:
    seen = Seen()
    seen.sees("a", "b")
    seen.sees(life="second")
    assert seen.sees(life="second", after_s=2.9) == "ab"
    assert seen.sees(life="third", after_s=0.05) == "ab"
    assert seen.sees("a", life="third", after_s=2.9) == "ab"
    assert seen.sees("a", life="third", after_s=0.2) == "a"


def test_the_first_view_is_taken_as_it_is() -> None:
    assert Seen().names == ""
    assert Seen().sees() == ""
    assert Seen().sees("a") == "a"
