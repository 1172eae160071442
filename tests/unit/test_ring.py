"""Which gateway a user belongs to: what is due to each by its weight, and nobody moves without need."""

import random
from collections import Counter
from collections.abc import Collection, Mapping
from hashlib import blake2b
from math import sqrt

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.cluster import ring as ring_module
from app.cluster.base import Node
from app.cluster.ring import Ring
from app.settings import load
from tests.contract.registries import node

POINTS = load().cluster.virtual_nodes
USERS = range(1, 3001)
UNEVEN = 0.15
"""Of its due share: what chance gives a node more or less with so many points, five standard deviations."""

node_names = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)
names = st.sets(node_names, min_size=1, max_size=12)
# The same examples each time: a share is a matter of chance, and a defect is not.
chosen = settings(derandomize=True, max_examples=30)


def ring(*nodes: Node) -> Ring:
    return Ring(nodes, POINTS)


def places(of: Ring) -> Mapping[int, str]:
    found = {}
    for user in USERS:
        place = of.node_of(user)
        assert place is not None
        found[user] = place.node_id
    return found


def deviations(count: int, share: float) -> float:
    """How far a count of users is from what chance makes most likely, in standard deviations."""
    return abs(count - share * len(USERS)) / max(1.0, sqrt(len(USERS) * share * max(0.0, 1 - share)))


@chosen
@given(names)
def test_shares_are_even_and_users_are_spread_by_them(names: set[str]) -> None:
    full = ring(*map(node, names))
    shares, found = full.shares(), Counter(places(full).values())
    assert shares.keys() == names
    for name in names:
        assert shares[name] == pytest.approx(1 / len(names), rel=UNEVEN)
        assert deviations(found[name], shares[name]) < 5


@chosen
@given(names, st.randoms(use_true_random=False))
def test_adding_or_removing_one_moves_only_its_own_users(names: set[str], chance: random.Random) -> None:
    one = chance.choice(sorted(names))
    others = ring(*(node(name) for name in names if name != one))
    full = ring(*map(node, names))
    everybody = places(full)
    moved = [user for user in USERS if everybody[user] == one]
    assert deviations(len(moved), full.shares()[one]) < 5
    if len(names) > 1:
        without = places(others)
        assert all(everybody[user] in (one, without[user]) for user in USERS)


def rendezvous(names: Collection[str]) -> Mapping[int, str]:
    """The reference: each user goes where its hash together with the name is highest (Thaler and Ravishankar, 1998)."""
    return {user: max(names, key=lambda each: blake2b(f"{each} {user}".encode()).digest()) for user in USERS}


@settings(chosen, max_examples=5)
@given(st.sets(node_names, min_size=2, max_size=8))
def test_it_is_as_even_as_rendezvous_hashing_and_moves_no_more(names: set[str]) -> None:
    full, reference = places(ring(*map(node, names))), rendezvous(names)
    most, most_there = (max(Counter(found.values()).values()) for found in (full, reference))
    assert most < (1 + UNEVEN) * most_there
    moved = moved_there = 0
    for one in names:
        others = names - {one}
        without, without_there = places(ring(*map(node, others))), rendezvous(others)
        moved += sum(full[user] != without[user] for user in USERS)
        moved_there += sum(reference[user] != without_there[user] for user in USERS)
    # Each node in turn comes and goes, so it is no matter of chance how many users it has.
    assert moved <= moved_there


@chosen
@given(names, st.randoms(use_true_random=False))
def test_the_order_in_which_nodes_come_does_not_matter(names: set[str], chance: random.Random) -> None:
    nodes = [node(name) for name in sorted(names)]
    chance.shuffle(nodes)
    assert places(ring(*nodes)) == places(ring(*map(node, sorted(names))))


@chosen
@given(st.dictionaries(st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True), st.integers(1, 16), min_size=1, max_size=8))
@example({"light": 1, "heavy": 16, "heavier": 16})
def test_weights_are_honoured(weights: dict[str, int]) -> None:
    full = ring(*(node(name, weight=weight) for name, weight in weights.items()))
    shares, found = full.shares(), Counter(places(full).values())
    for name, weight in weights.items():
        assert shares[name] == pytest.approx(weight / sum(weights.values()), rel=UNEVEN)
        assert deviations(found[name], shares[name]) < 5


@chosen
@given(names, st.randoms(use_true_random=False))
def test_whoever_failed_at_one_goes_where_its_users_would_go(names: set[str], chance: random.Random) -> None:
    failed = chance.choice(sorted(names))
    full = ring(*map(node, names))
    if len(names) == 1:
        assert full.node_of(7, failed) == full.node_of(7)
        return
    others = ring(*(node(name) for name in names if name != failed))
    assert all(full.node_of(user, failed) == others.node_of(user) for user in range(1, 300))


def test_a_node_that_drains_gets_nobody() -> None:
    full = ring(node("a"), node("b", state="draining"))
    assert set(places(full).values()) == {"a"}
    assert ring(node("b", state="draining")).node_of(7) is None
    assert ring().node_of(7, "a") is None


def test_every_process_and_every_version_agrees() -> None:
    full = ring(*(node(f"gateway-{number}") for number in range(5)))
    found = [place.node_id[-1] for user in range(1, 41) if (place := full.node_of(user << 22))]
    assert "".join(found) == "4413114120330011230441123344313032410000"


few = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 3), max_size=6)


@pytest.mark.parametrize("circle", [1 << 64, 1 << 32, 1 << 11])
@chosen
@given(history=st.lists(few, min_size=2, max_size=6))
def test_however_a_ring_came_to_be_it_is_the_same(circle: int, history: list[dict[str, int]]) -> None:
    plain = ring_module._points

    def narrow(node_id: str, count: int) -> list[int]:
        # On a small circle points of two nodes meet.
        return list({point % circle: None for point in plain(node_id, count)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring_module, "_points", narrow)
        made = Ring([], 16)
        for state in history:
            nodes = [node(name, weight=weight) for name, weight in state.items()]
            made, anew = Ring(nodes, 16, made), Ring(nodes, 16)
            assert made.circle.owners == anew.circle.owners
            assert made.circle.points == anew.circle.points


def test_a_node_that_changed_otherwise_is_the_new_one_on_the_old_ring() -> None:
    old = ring(node("a"), node("b"))
    new = Ring([node("a", "another"), node("b")], POINTS, old)
    assert places(new) == places(old)
    assert {each.boot_id for user in USERS if (each := new.node_of(user)) and each.node_id == "a"} == {"another"}


def test_rings_have_the_same_number_where_processes_and_points_are_the_same() -> None:
    nodes = [node("a"), node("b", "second", weight=2)]
    number = ring(*nodes).fingerprint()
    assert ring(*reversed(nodes), node("c", state="draining")).fingerprint() == number
    others = [
        ring(node("a")),
        ring(node("a"), node("b", "third", weight=2)),
        ring(node("a"), node("b", "second", weight=3)),
        ring(node("a"), node("c", "second", weight=2)),
        ring(*nodes, node("c")),
        Ring(nodes, POINTS // 2),
    ]
    assert number not in {other.fingerprint() for other in others}
    assert number < 1 << 32
