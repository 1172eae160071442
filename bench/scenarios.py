"""The scenarios and their default shapes."""

from enum import StrEnum

import msgspec

from bench.plan import Shape


class Scenario(StrEnum):
    """What can be asked for."""

    QUICK = "quick"
    """A small round of all others, about a minute."""
    CONNECTIONS = "connections"
    """Idle connections: time to connect, memory, CPU when nothing happens."""
    INGEST = "ingest"
    """Many senders in small groups."""
    FANOUT = "fanout"
    """Few senders in big groups."""
    SLOW = "slow"
    """The same without and with 5 % of people who read nothing: what the others feel of them."""


SHAPES: dict[Scenario, Shape] = {
    Scenario.CONNECTIONS: Shape(users=10_000, group_size=50, groups_per_user=5, senders=0, rate=0, duration_s=30),
    Scenario.INGEST: Shape(
        users=2_000, group_size=10, groups_per_user=1, senders=2_000, rate=1, duration_s=30, warm_up_s=3
    ),
    Scenario.FANOUT: Shape(
        users=1_000, group_size=500, groups_per_user=1, senders=20, rate=1, duration_s=30, warm_up_s=3
    ),
    # Long messages, or all that they miss would fit into the kernel's buffers.
    Scenario.SLOW: Shape(
        users=400,
        group_size=200,
        groups_per_user=1,
        senders=20,
        rate=1,
        duration_s=60,
        warm_up_s=3,
        body_chars=2000,
        slow=20,
    ),
}
QUICK_SHAPES: dict[Scenario, Shape] = {
    Scenario.CONNECTIONS: Shape(users=500, group_size=50, groups_per_user=5, senders=0, rate=0, duration_s=3),
    Scenario.INGEST: Shape(users=200, group_size=10, groups_per_user=1, senders=200, rate=1, duration_s=8, warm_up_s=2),
    Scenario.FANOUT: Shape(users=200, group_size=100, groups_per_user=1, senders=10, rate=1, duration_s=8, warm_up_s=2),
}


def shapes_of(scenario: Scenario) -> dict[Scenario, Shape]:
    """The shapes that a scenario runs, in order."""
    match scenario:
        case Scenario.QUICK:
            return QUICK_SHAPES
        case Scenario.SLOW:
            return {Scenario.FANOUT: msgspec.structs.replace(SHAPES[scenario], slow=0), scenario: SHAPES[scenario]}
        case _:
            return {scenario: SHAPES[scenario]}
