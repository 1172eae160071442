"""A history in memory: by message, by group, by client."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from bench.history.records import Item

NEVER = 1 << 63


class HistoryError(Exception):
    """The file is not a history; the message names the place."""


class Key(NamedTuple):
    """What makes a send the same send."""

    group: int
    sender: int
    client_msg_id: str


@dataclass(slots=True)
class Attempt:
    """One try; `order` rises with the sending on a connection."""

    t: int
    order: int
    conn: str
    client: str
    digest: str
    outcome: Literal["ok", "fail", "info"] = "info"


@dataclass(slots=True)
class Send:
    """One message as its sender knows it."""

    attempts: list[Attempt] = field(default_factory=list)
    acks: list[tuple[int, str]] = field(default_factory=list)
    """(seq, message_id) of each ack."""
    acked: int = NEVER
    """When the first ack arrived."""

    def candidates(self) -> list[Attempt]:
        """The attempts that may be the accepted one: not refused, and not begun after the first ack."""
        return [a for a in self.attempts if a.outcome != "fail" and a.t <= self.acked]


@dataclass(slots=True)
class Read:
    """A history as some members read it; `began` of their latest reading and `done` of their earliest."""

    items: list[Item]
    member: int
    began: int
    done: int


@dataclass(slots=True)
class Group:
    """What was shown of a group to anyone."""

    reads: dict[bytes, Read] = field(default_factory=dict)
    """By text: readings that agree are kept once."""
    history: dict[int, Item] = field(default_factory=dict)
    """seq → the message, as first read in a history."""
    items: dict[int, Item] = field(default_factory=dict)
    """seq → the message, as first pushed or pulled."""
    others: set[Item] = field(default_factory=set)
    """What contradicts an earlier showing of the same seq."""
    shown: dict[int, int] = field(default_factory=dict)
    """seq → when it was first pushed or pulled."""

    def truth(self) -> dict[int, Item]:
        """seq → the message: what history says, else what was shown."""
        return self.items | self.history

    def contradictions(self, truth: dict[int, Item]) -> set[Item]:
        """Messages shown under a seq that has another one in `truth`."""
        return {item for item in (*self.others, *self.items.values()) if differ(item, truth[item.seq])}


@dataclass(slots=True)
class View:
    """One client's view of one group."""

    intervals: list[tuple[int, int]] = field(default_factory=list)
    """[online, offline); the last one is open while `online_since` is set."""
    online_since: int | None = None
    cursor: int | None = None
    first: dict[int, int] = field(default_factory=dict)
    """seq → when it was first pushed or pulled."""
    acked: dict[int, int] = field(default_factory=dict)
    """seq → when the client's own message was acked."""
    conn: str = ""
    pushed: int = 0
    """The highest seq pushed on `conn`."""


@dataclass(slots=True)
class History:
    """Everything a check needs."""

    sends: dict[Key, Send] = field(default_factory=dict)
    groups: dict[int, Group] = field(default_factory=dict)
    views: dict[tuple[str, int], View] = field(default_factory=dict)
    misordered: list[tuple[int, str]] = field(default_factory=list)
    """(group, detail) of every showing that was not in the order of seq."""
    events: int = 0
    end: int = 0


def differ(one: Item, other: Item) -> bool:
    """Whether two showings are of different messages; an id that was not recorded matches any."""
    if one[:4] != other[:4]:
        return True
    return one.message_id != other.message_id and bool(one.message_id and other.message_id)
