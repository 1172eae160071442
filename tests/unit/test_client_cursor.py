"""Whatever is lost, repeated or reordered on the way down: the reader sees each seq once, in order."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.client.cursor import Cursor, Pull
from app.protocol.frames import Message

MAX_ASIDE = 8


def message(seq: int) -> Message:
    return Message(str(1000 + seq), "7", seq, "5", "4f2c1f3e-0000-4000-8000-000000000001", "text", f"m{seq}", 1)


def run(first: int, last: int) -> list[Message]:
    return [message(seq) for seq in range(first, last + 1)]


def seqs(messages: list[Message]) -> list[int]:
    return [item.seq for item in messages]


def test_takes_what_follows() -> None:
    cursor = Cursor(4, max_aside=MAX_ASIDE)
    assert seqs(cursor.on_packet(4, run(5, 6))) == [5, 6]
    assert cursor.have == 6
    assert not cursor.wants_pull


def test_takes_only_the_newer_items_of_an_overlap() -> None:
    cursor = Cursor(4, max_aside=MAX_ASIDE)
    assert seqs(cursor.on_packet(2, run(3, 6))) == [5, 6]
    assert cursor.on_packet(2, run(3, 6)) == []


def test_keeps_a_later_packet_aside_until_the_hole_is_pulled() -> None:
    cursor = Cursor(4, max_aside=MAX_ASIDE)
    assert cursor.on_packet(6, run(7, 8)) == []
    assert cursor.wants_pull
    pull = cursor.begin_pull()
    assert pull.after == 4
    assert seqs(cursor.on_pulled(pull, run(5, 6), complete=False)) == [5, 6, 7, 8]
    assert not cursor.wants_pull


def test_only_pulling_closes_a_gap() -> None:
    cursor = Cursor(4, max_aside=MAX_ASIDE)
    cursor.on_gap(6)
    assert seqs(cursor.on_packet(4, run(5, 7))) == [5, 6, 7]
    assert cursor.wants_pull
    assert cursor.on_pulled(cursor.begin_pull(), [], complete=True) == []
    assert not cursor.wants_pull


def test_a_gap_below_what_we_have_is_none() -> None:
    cursor = Cursor(4, max_aside=MAX_ASIDE)
    cursor.on_gap(4)
    assert not cursor.wants_pull


def test_a_gap_announced_while_a_pull_is_under_way_needs_its_own() -> None:
    cursor = Cursor(4, max_aside=MAX_ASIDE)
    cursor.on_gap(None)
    pull = cursor.begin_pull()
    cursor.on_gap(None)
    cursor.on_pulled(pull, [], complete=True)
    assert cursor.wants_pull
    cursor.on_pulled(cursor.begin_pull(), run(5, 5), complete=True)
    assert not cursor.wants_pull


def test_a_full_shelf_becomes_a_gap() -> None:
    cursor = Cursor(0, max_aside=2)
    cursor.on_packet(1, run(2, 3))
    cursor.on_packet(5, run(6, 6))
    assert cursor.aside == 2
    assert seqs(cursor.on_pulled(cursor.begin_pull(), run(1, 1), complete=False)) == [1, 2, 3]
    assert cursor.wants_pull


def test_a_packet_with_a_hole_is_not_trusted() -> None:
    cursor = Cursor(4, max_aside=MAX_ASIDE)
    assert seqs(cursor.on_packet(4, [message(5), message(7)])) == [5]
    assert cursor.wants_pull
    assert seqs(cursor.on_pulled(cursor.begin_pull(), run(6, 7), complete=True)) == [6, 7]


@dataclass
class Server:
    """The truth: `last` messages are stored."""

    last: int = 0

    def page(self, after: int, limit: int) -> tuple[list[Message], bool]:
        end = min(self.last, after + limit)
        return run(after + 1, end), end >= self.last


@dataclass
class Line:
    """Frames on their way; any of them may be lost, repeated or overtaken."""

    packets: list[tuple[int, int]] = field(default_factory=list)


class Reader(RuleBasedStateMachine):
    """A server that stores, a line that loses, a client that reads."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.line = Line()
        self.cursor = Cursor(0, max_aside=MAX_ASIDE)
        self.seen: list[int] = []
        self.pulls: list[tuple[Pull, list[Message], bool]] = []

    def read(self, messages: list[Message]) -> None:
        self.seen += seqs(messages)

    @rule(count=st.integers(1, 6))
    def store_and_push(self, count: int) -> None:
        self.line.packets.append((self.server.last, self.server.last + count))
        self.server.last += count

    @rule(data=st.data(), repeat=st.booleans())
    @precondition(lambda self: self.line.packets)
    def deliver(self, data: st.DataObject, repeat: bool) -> None:
        index = data.draw(st.integers(0, len(self.line.packets) - 1))
        prev, last = self.line.packets[index]
        if not repeat:
            del self.line.packets[index]
        self.read(self.cursor.on_packet(prev, run(prev + 1, last)))

    @rule(data=st.data())
    @precondition(lambda self: self.line.packets)
    def lose(self, data: st.DataObject) -> None:
        del self.line.packets[data.draw(st.integers(0, len(self.line.packets) - 1))]

    @rule(open_end=st.booleans(), data=st.data())
    @precondition(lambda self: self.server.last)
    def announce(self, open_end: bool, data: st.DataObject) -> None:
        self.cursor.on_gap(None if open_end else data.draw(st.integers(1, self.server.last)))

    @rule(limit=st.integers(1, 4))
    @precondition(lambda self: len(self.pulls) < 3)
    def ask(self, limit: int) -> None:
        pull = self.cursor.begin_pull()
        self.pulls.append((pull, *self.server.page(pull.after, limit)))

    @rule(data=st.data())
    @precondition(lambda self: self.pulls)
    def answer(self, data: st.DataObject) -> None:
        pull, items, complete = self.pulls.pop(data.draw(st.integers(0, len(self.pulls) - 1)))
        self.read(self.cursor.on_pulled(pull, items, complete=complete))

    @rule(limit=st.integers(1, 4))
    def settle(self, limit: int) -> None:
        """The head is announced at last, and pulls are answered."""
        self.cursor.on_gap(self.server.last)
        for _ in range(self.server.last + 2):
            if not self.cursor.wants_pull:
                break
            pull = self.cursor.begin_pull()
            items, complete = self.server.page(pull.after, limit)
            self.read(self.cursor.on_pulled(pull, items, complete=complete))
        assert not self.cursor.wants_pull
        assert self.seen == list(range(1, self.server.last + 1))

    @invariant()
    def once_and_in_order(self) -> None:
        assert self.seen == list(range(1, self.cursor.have + 1))
        assert self.cursor.aside <= MAX_ASIDE

    def teardown(self) -> None:
        self.settle(3)


TestReader = Reader.TestCase
TestReader.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), max_size=40))
def test_packets_of_any_order_never_show_a_hole(packets: list[tuple[int, int]]) -> None:
    cursor = Cursor(0, max_aside=MAX_ASIDE)
    seen: list[int] = []
    for prev, count in packets:
        seen += seqs(cursor.on_packet(prev, run(prev + 1, prev + count)))
    assert seen == list(range(1, cursor.have + 1))
