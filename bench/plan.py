"""What a run is made of; sent to the worker processes as JSON."""

import msgspec

MAX_DURATION_S = 3600
MAX_MESSAGES = 5_000_000
"""The schedule is made in advance and kept in memory."""
MIN_BODY_CHARS = 20
"""A body begins with the nanosecond at which it was due, 19 digits and a space."""
MAX_BODY_CHARS = 2000


class Shape(msgspec.Struct, frozen=True):
    """Users, groups and load of one scenario."""

    users: int
    """One connection each."""
    group_size: int
    groups_per_user: int
    senders: int
    rate: float
    """Messages per second of each sender, evenly spaced from a random moment on, to its groups in turn."""
    duration_s: float
    warm_up_s: float = 0.0
    """The same load goes before it, and is left out of the figures: a JVM just started takes some seconds to compile itself."""
    body_chars: int = 60
    more_groups: tuple[int, ...] = ()
    """Sizes of further groups, each of random users."""
    slow: int = 0
    """So many of those who do not send read nothing while the load lasts."""

    def __post_init__(self) -> None:
        """Refuse what cannot be laid out. Raises ValueError."""
        if self.users < 1 or self.groups_per_user < 1:
            raise ValueError("use at least one user, in at least one group")
        if not 1 <= self.group_size <= self.users:
            raise ValueError(f"a group of {self.group_size} needs as many users; there are {self.users}")
        if not all(1 <= size <= self.users for size in self.more_groups):
            raise ValueError(f"groups of {self.more_groups} need as many users; there are {self.users}")
        if not 0 <= self.senders <= self.users:
            raise ValueError(f"{self.senders} senders are more than the {self.users} users")
        if not 0 <= self.slow <= self.users - self.senders:
            raise ValueError(
                f"{self.slow} slow readers are more than the {self.users - self.senders} users who do not send"
            )
        if not 0 < self.duration_s <= MAX_DURATION_S:
            raise ValueError(f"the load lasts up to {MAX_DURATION_S} s; {self.duration_s} is not between")
        if not 0 <= self.warm_up_s <= MAX_DURATION_S:
            raise ValueError(f"the warm-up lasts up to {MAX_DURATION_S} s; {self.warm_up_s} is not between")
        if self.messages > MAX_MESSAGES:
            raise ValueError(f"{self.messages} messages are more than the bound of {MAX_MESSAGES}")
        if not MIN_BODY_CHARS <= self.body_chars <= MAX_BODY_CHARS:
            raise ValueError(f"a body has {MIN_BODY_CHARS} to {MAX_BODY_CHARS} characters")

    @property
    def messages(self) -> int:
        """How many sends are due in a run, about."""
        return round(self.senders * self.rate * self.load_s)

    @property
    def load_s(self) -> float:
        """How long messages are sent, the warm-up included."""
        return self.warm_up_s + self.duration_s


class Member(msgspec.Struct, frozen=True):
    """A user to connect."""

    user_id: int
    token: str
    groups: list[int]
    sends: bool
    slow: bool = False
    """Reads nothing while the load lasts."""


class WorkerPlan(msgspec.Struct, frozen=True):
    """The part of a run that one worker process plays."""

    number: int
    ws_urls: list[str]
    """Members connect to these in turn."""
    api_url: str
    members: list[Member]
    group_sizes: dict[int, int]
    """Members who read."""
    shape: Shape
    seed: int
    connect_rate: float
    """Handshakes begun per second."""
    connect_timeout_s: float
    history: str
    """The file in which to record what happens; empty: nothing is recorded."""
    readers_max: int
    """Members of each group that read its whole history at the end, when recording."""


class Progress(msgspec.Struct, tag="progress"):
    """Counts so far, of what was due after the warm-up."""

    connected: int = 0
    sent: int = 0
    answered: int = 0
    acked: int = 0
    delivered: int = 0
    expected: int = 0
    """Deliveries that the acks so far promise: the other members who read of each acked message's group."""


class Connected(msgspec.Struct, tag="connected"):
    """All members are connected, or have failed."""

    failures: dict[str, int]


class Sent(msgspec.Struct, tag="sent"):
    """The schedule is through."""


class Result(msgspec.Struct, tag="result"):
    """What a worker saw. Latencies are counts by microseconds, of what was due after the warm-up."""

    progress: Progress
    warm_up_us: dict[int, int]
    """Until the ack, of what was due in the warm-up."""
    ack_us: dict[int, int]
    delivery_us: dict[int, int]
    late_us: dict[int, int]
    """How much after its due time each send was written: the generator's own share of the latencies."""
    connect_us: dict[int, int]
    errors: dict[str, int]
    """code/outcome → count."""
    not_sent: int
    """Sends due on a connection that was closed."""
    closed: dict[str, int]
    """Close code → connections that the server ended."""
    gaps: int
    pulled: int
    """Messages that came by pulling."""
    pull_failures: dict[str, int]
    """Reason → pulls and readings of histories that failed."""


class Begin(msgspec.Struct, tag="begin"):
    """Start the load at this CLOCK_MONOTONIC nanosecond."""

    at_ns: int


class Finish(msgspec.Struct, tag="finish"):
    """Read the histories, close, and send the result."""


Report = Progress | Connected | Sent | Result
Command = Begin | Finish
