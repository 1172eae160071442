"""The history checker: histories that keep the contract are clean, and what cannot be judged is said."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.history import KINDS, HistoryError, Item, Recorder, check, digest, load
from tests.stories import ALICE, BOB, Story, item, lost_tail, plain_chat

# Histories that keep the contract, though they look odd.


def nothing_happens(_: Story) -> None:
    """An empty file is a clean history."""


def repeats_with_equal_replies(s: Story) -> None:
    first, second = s.begin("a"), s.begin("a", conn="a2", attempt=2)
    s.ok(second, 1, message_id="100")
    s.ok(first, 1, message_id="100")
    s.ok(s.begin("a", attempt=3), 1, message_id="100")
    s.final(item(1, "a", message_id="100"))


def repeat_with_other_content_is_refused(s: Story) -> None:
    s.sent("a", 1)
    s.fail(s.begin("a", body="changed", attempt=2))
    s.final(item(1, "a"))


def refused_then_accepted(s: Story) -> None:
    s.fail(s.begin("a"))
    s.sent("b", 1)
    s.ok(s.begin("a", attempt=2), 2)
    s.final(item(1, "b"), item(2, "a"))


def unknown_appears(s: Story) -> None:
    s.info(s.begin("a"))
    s.begin("b")
    s.final(item(1, "a"), item(2, "b"))


def unknown_never_appears(s: Story) -> None:
    s.info(s.begin("a"))
    s.begin("b")
    s.final()


def unknown_then_refused_appears(s: Story) -> None:
    s.info(s.begin("a"))
    s.fail(s.begin("a", attempt=2))
    s.final(item(1, "a"))


def ack_lost_then_repeated_later(s: Story) -> None:
    s.begin("a")
    s.sent("b", 2)
    s.ok(s.begin("a", conn="a2", attempt=2), 1)
    s.final(item(1, "a"), item(2, "b"))


def unknown_repeat_lands_behind(s: Story) -> None:
    s.begin("a")
    s.sent("b", 1)
    s.ok(s.begin("a", attempt=2), 2)
    s.final(item(1, "b"), item(2, "a"))


def connections_race(s: Story) -> None:
    first, second = s.begin("a", conn="a1"), s.begin("b", conn="a2")
    s.ok(first, 2)
    s.ok(second, 1)
    s.final(item(1, "b"), item(2, "a"))


def late_append_after_reading(s: Story) -> None:
    s.info(s.begin("a"))
    s.final(member=ALICE)
    s.final(item(1, "a"), member=BOB)


def gap_is_pulled(s: Story) -> None:
    s.online("bob")
    for seq, name in enumerate("abc", 1):
        s.sent(name, seq)
    s.seen("bob", item(1, "a"))
    s.seen("bob", item(3, "c"))
    s.wait(3)
    s.seen("bob", item(2, "b"), via="pull")
    s.wait(20)
    s.final(item(1, "a"), item(2, "b"), item(3, "c"))


def pushed_again_after_a_reconnect(s: Story) -> None:
    s.online("bob")
    s.sent("a", 1)
    s.sent("b", 2)
    s.seen("bob", item(1, "a"), item(2, "b"), conn="b1")
    s.offline("bob")
    s.online("bob", None)
    s.seen("bob", item(1, "a"), item(2, "b"), via="pull", conn="b2")
    s.seen("bob", item(2, "b"), conn="b2")
    s.final(item(1, "a"), item(2, "b"))


def away_members_may_miss(s: Story) -> None:
    s.online("bob")
    s.wait(20)
    s.offline("bob")
    s.sent("a", 1)
    s.wait(60)
    s.online("bob", None)
    s.wait(14)
    s.seen("bob", item(1, "a"), via="pull")
    s.wait(20)
    s.final(item(1, "a"))


def cursor_covers_what_was_before(s: Story) -> None:
    s.sent("a", 1)
    s.online("bob", 1)
    s.wait(20)
    s.final(item(1, "a"))


def own_message_is_seen_by_its_ack(s: Story) -> None:
    s.online("alice")
    s.sent("a", 1, client="alice")
    s.wait(20)
    s.final(item(1, "a"))


GOOD: list[Callable[[Story], None]] = [
    nothing_happens,
    plain_chat,
    repeats_with_equal_replies,
    repeat_with_other_content_is_refused,
    refused_then_accepted,
    unknown_appears,
    unknown_never_appears,
    unknown_then_refused_appears,
    ack_lost_then_repeated_later,
    unknown_repeat_lands_behind,
    connections_race,
    late_append_after_reading,
    gap_is_pulled,
    pushed_again_after_a_reconnect,
    away_members_may_miss,
    cursor_covers_what_was_before,
    own_message_is_seen_by_its_ack,
]


@pytest.mark.parametrize("tell", GOOD, ids=lambda tell: tell.__name__)
def test_a_good_history_is_clean(story: Story, tell: Callable[[Story], None]) -> None:
    tell(story)
    report = story.report()
    assert report.clean, (report.examples, report.unjudged, report.unread_groups)


def test_histories_that_nobody_read_are_not_called_clean(story: Story) -> None:
    story.sent("a", 1)
    report = story.report()
    assert not report.kinds
    assert report.unread_groups == 1
    assert not report.clean


def test_deliveries_outstanding_at_an_early_end_are_not_called_clean(story: Story) -> None:
    story.online("bob")
    story.sent("a", 1)
    story.wait(5)
    story.final(item(1, "a"))
    report = story.report()
    assert not report.kinds
    assert report.unjudged == 1
    assert not report.clean


def test_files_of_several_processes_make_one_history(tmp_path: Path) -> None:
    one, two = Story(tmp_path / "1"), Story(tmp_path / "2")
    one.sent("a", 2)
    two.wait(5)
    two.sent("b", 1, sender=BOB, conn="b1")
    two.final(item(1, "b", sender=BOB), item(2, "a"))
    one.record.close()
    two.record.close()
    assert check(load([one.path, two.path])).kinds == {"reorder"}


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        '{"e":"ok","t":1,"op":1,"seq":1}',
        '{"e":"unheard","t":1}',
        '{"e":"seen","t":1,"client":"b","conn":"b1","group":7,"via":"push","items":[["x"]]}',
    ],
)
def test_what_is_not_a_history_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(f'{{"e":"online","t":1,"client":"b","groups":{{"7":0}}}}\n{text}\n')
    with pytest.raises(HistoryError, match=r"history.jsonl:2: "):
        load([path])


def test_a_body_counts_in_its_normal_form() -> None:
    assert digest("text", "e\u0301") == digest("text", "\u00e9") != digest("text", "e")


@pytest.mark.parametrize(("tell", "code"), [(plain_chat, 0), (lost_tail, 1)])
def test_the_command_prints_a_table_and_ends_with_a_code(
    story: Story, tell: Callable[[Story], None], code: int
) -> None:
    tell(story)
    story.record.close()
    command = [sys.executable, "-m", "bench.history", str(story.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code, done.stderr
    assert all(kind in done.stdout for kind in KINDS)


@pytest.mark.timeout(120)
def test_a_million_events_take_seconds(tmp_path: Path) -> None:
    """20 groups, 20,000 messages, 50 members each: 1,040,020 events."""
    path = tmp_path / "history.jsonl"
    clock = 0

    def tick() -> int:
        nonlocal clock
        clock += 1000
        return clock

    histories: dict[int, list[Item]] = {group: [] for group in range(20)}
    with Recorder(path, clock=tick) as record:
        for member in range(50):
            record.online(f"m{member}", dict.fromkeys(histories, 0))
        for number in range(20_000):
            group, name = number % 20, f"{number:036d}"
            op = record.invoke(group=group, sender=1, client_msg_id=name, digest="d", conn=f"c{number % 40}")
            shown = Item(len(histories[group]) + 1, 1, name, "d", str(number))
            histories[group].append(shown)
            record.ok(op, shown.seq, str(number))
            for member in range(50):
                record.seen(client=f"m{member}", conn=f"m{member}", group=group, items=[shown])
        for group, items in histories.items():
            record.final_history(member=1, group=group, items=items, began=record.now())
    since = time.process_time()
    report = check(load([path]))
    assert not report.kinds
    assert report.events > 1_000_000
    assert time.process_time() - since < 20
