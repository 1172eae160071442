"""When users are moved to a gateway that came: after it has stayed, and later each time it went away."""

from app.cluster.base import Node
from app.cluster.ring import Ring
from app.web.gateway.moving import DOUBLINGS_MAX, FORGIVEN_S, Newcomers
from tests.contract.registries import node

SETTLE_S = 10.0


class Cluster:
    """A ring and a clock that are set."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.ring = Ring((), 1)
        self.newcomers = Newcomers(SETTLE_S, lambda: self.now_s)

    def shows(self, *nodes: Node) -> None:
        old, self.ring = self.ring, Ring(nodes, 1)
        self.newcomers.on_ring(old, self.ring)

    def settled_after(self, *, at_most_s: float = 10_000.0) -> float:
        """Seconds until somebody gets users."""
        since = self.now_s
        while not self.newcomers.take():
            wait_s = self.newcomers.wait_s()
            assert wait_s is not None
            assert self.now_s - since <= at_most_s
            self.now_s += wait_s
        return self.now_s - since


def test_a_newcomer_gets_users_once_when_it_has_stayed() -> None:
    cluster = Cluster()
    cluster.shows(node("a"))
    cluster.now_s += SETTLE_S - 1
    assert not cluster.newcomers.take()
    cluster.shows(node("a"), node("b"))
    assert cluster.newcomers.wait_s() == 1
    cluster.now_s += 1
    assert cluster.newcomers.take() == {"a"}
    assert cluster.newcomers.waits("b")
    cluster.now_s += SETTLE_S - 1
    assert cluster.newcomers.take() == {"b"}
    assert not cluster.newcomers.waits("b")
    assert cluster.newcomers.wait_s() is None


def test_who_goes_before_gets_nobody() -> None:
    cluster = Cluster()
    cluster.shows(node("b"))
    cluster.shows()
    cluster.now_s += SETTLE_S
    assert not cluster.newcomers.take()
    assert cluster.newcomers.wait_s() is None


def test_who_comes_and_goes_waits_longer_each_time_up_to_a_bound() -> None:
    cluster = Cluster()
    waits = []
    for _ in range(DOUBLINGS_MAX + 3):
        cluster.shows(node("a"), node("b"))
        waits.append(cluster.settled_after())
        # A steady one is not held up by the other.
        cluster.shows(node("a"))
    assert waits == [SETTLE_S * 2 ** min(times, DOUBLINGS_MAX) for times in range(DOUBLINGS_MAX + 3)]
    cluster.now_s += FORGIVEN_S
    cluster.shows(node("a"), node("b"))
    assert cluster.settled_after() == SETTLE_S


def test_another_process_under_the_same_name_is_a_newcomer() -> None:
    cluster = Cluster()
    cluster.shows(node("b", boot_id="one"))
    cluster.settled_after()
    cluster.shows(node("b", boot_id="two"))
    assert cluster.newcomers.waits("b")
    assert cluster.settled_after() == 2 * SETTLE_S
