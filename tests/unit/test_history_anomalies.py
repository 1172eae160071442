"""The history checker: each anomaly is named in a history that has it."""

from collections.abc import Callable

import pytest

from bench.history import KINDS
from tests.stories import ALICE, BOB, Story, item, lost_tail

# Histories that break the contract, each in exactly one way.


def lost_though_replaced(s: Story) -> None:
    s.sent("a", 1)
    s.info(s.begin("b", conn="a2"))
    s.final(item(1, "b"))


def lost_for_one_member(s: Story) -> None:
    s.sent("a", 1)
    s.final(item(1, "a"), member=ALICE)
    s.final(member=BOB)


def lost_after_it_was_pushed(s: Story) -> None:
    s.info(s.begin("a"))
    s.seen("bob", item(1, "a"))
    s.final()


def lost_between_two_readings(s: Story) -> None:
    s.info(s.begin("a"))
    s.final(item(1, "a"), member=ALICE)
    s.final(member=BOB)


def duplicate_in_history(s: Story) -> None:
    s.sent("a", 1)
    s.final(item(1, "a"), item(2, "a"))


def duplicate_in_acks(s: Story) -> None:
    first, second = s.begin("a"), s.begin("a", conn="a2", attempt=2)
    s.ok(first, 1)
    s.ok(second, 2)
    s.sent("b", 2, conn="a3")
    s.final(item(1, "a"), item(2, "b"))


def duplicate_after_an_unknown_outcome(s: Story) -> None:
    s.info(s.begin("a"))
    s.ok(s.begin("a", attempt=2), 2)
    s.final(item(1, "a"), item(2, "a"))


def reorder_on_one_connection(s: Story) -> None:
    first, second = s.begin("a"), s.begin("b")
    s.ok(second, 1)
    s.ok(first, 2)
    s.final(item(1, "b"), item(2, "a"))


def reorder_of_unknown_on_one_connection(s: Story) -> None:
    s.begin("a")
    s.ok(s.begin("b"), 1)
    s.final(item(1, "b"), item(2, "a"))


def reorder_in_real_time(s: Story) -> None:
    s.sent("a", 2, conn="a1")
    s.sent("b", 1, sender=BOB, conn="b1")
    s.final(item(1, "b", sender=BOB), item(2, "a"))


def reorder_in_real_time_after_retries(s: Story) -> None:
    s.info(s.begin("a", conn="a1"))
    s.ok(s.begin("a", conn="a2", attempt=2), 2)
    s.info(s.begin("b", sender=BOB, conn="b1"))
    s.final(item(1, "b", sender=BOB), item(2, "a"))


def reorder_before_a_late_repeat(s: Story) -> None:
    s.sent("a", 2)
    s.sent("b", 1)
    s.ok(s.begin("a", attempt=2), 2)
    s.final(item(1, "b"), item(2, "a"))


def reorder_in_a_packet(s: Story) -> None:
    s.sent("a", 1)
    s.sent("b", 2)
    s.seen("bob", item(2, "b"), item(1, "a"))
    s.final(item(1, "a"), item(2, "b"))


def reorder_of_packets(s: Story) -> None:
    s.sent("a", 1)
    s.sent("b", 2)
    s.seen("bob", item(2, "b"))
    s.seen("bob", item(1, "a"))
    s.final(item(1, "a"), item(2, "b"))


def reorder_in_history(s: Story) -> None:
    s.sent("a", 1)
    s.sent("b", 2)
    s.final(item(2, "b"), item(1, "a"))


def divergent_push(s: Story) -> None:
    s.sent("a", 1)
    s.seen("bob", item(1, "a", body="something else"))
    s.final(item(1, "a"))


def divergent_histories(s: Story) -> None:
    s.sent("a", 1)
    s.final(item(1, "a"), member=ALICE)
    s.final(item(1, "a", body="something else"), member=BOB)


def divergent_ids(s: Story) -> None:
    s.ok(s.begin("a"), 1, message_id="100")
    s.final(item(1, "a", message_id="200"))


def gap_in_history(s: Story) -> None:
    s.sent("a", 1)
    s.sent("b", 3)
    s.final(item(1, "a"), item(3, "b"))


def gap_at_the_start(s: Story) -> None:
    s.sent("a", 2)
    s.final(item(2, "a"))


def phantom_in_history(s: Story) -> None:
    s.sent("a", 1)
    s.final(item(1, "a"), item(2, "nobody's"))


def phantom_sender(s: Story) -> None:
    s.info(s.begin("a", sender=ALICE))
    s.final(item(1, "a", sender=BOB))


def phantom_body(s: Story) -> None:
    s.sent("a", 1)
    s.final(item(1, "a", body="something else"))


def phantom_push(s: Story) -> None:
    s.sent("a", 1)
    s.seen("bob", item(1, "a"), item(2, "nobody's"))
    s.final(item(1, "a"))


def aborted_yet_visible(s: Story) -> None:
    s.fail(s.begin("a"))
    s.fail(s.begin("a", attempt=2))
    s.final(item(1, "a"))


def aborted_body_yet_visible(s: Story) -> None:
    s.begin("a")
    s.fail(s.begin("a", body="changed", attempt=2))
    s.final(item(1, "a", body="changed"))


def unseen_by_an_online_member(s: Story) -> None:
    s.online("bob")
    s.sent("a", 1)
    s.wait(16)
    s.final(item(1, "a"))


def unseen_in_time(s: Story) -> None:
    s.online("bob")
    s.sent("a", 1)
    s.wait(16)
    s.seen("bob", item(1, "a"), via="pull")
    s.final(item(1, "a"))


def unseen_after_a_reconnect(s: Story) -> None:
    s.online("bob")
    s.offline("bob")
    s.sent("a", 1)
    s.wait(20)
    s.online("bob", None)
    s.wait(16)
    s.final(item(1, "a"))


def unseen_unacked_message(s: Story) -> None:
    s.online("bob")
    s.online("carol")
    s.info(s.begin("a"))
    s.seen("carol", item(1, "a"))
    s.wait(16)
    s.final(item(1, "a"))


BAD: list[Callable[[Story], None]] = [
    lost_tail,
    lost_though_replaced,
    lost_for_one_member,
    lost_after_it_was_pushed,
    lost_between_two_readings,
    duplicate_in_history,
    duplicate_in_acks,
    duplicate_after_an_unknown_outcome,
    reorder_on_one_connection,
    reorder_of_unknown_on_one_connection,
    reorder_in_real_time,
    reorder_in_real_time_after_retries,
    reorder_before_a_late_repeat,
    reorder_in_a_packet,
    reorder_of_packets,
    reorder_in_history,
    divergent_push,
    divergent_histories,
    divergent_ids,
    gap_in_history,
    gap_at_the_start,
    phantom_in_history,
    phantom_sender,
    phantom_body,
    phantom_push,
    aborted_yet_visible,
    aborted_body_yet_visible,
    unseen_by_an_online_member,
    unseen_in_time,
    unseen_after_a_reconnect,
    unseen_unacked_message,
]


@pytest.mark.parametrize("tell", BAD, ids=lambda tell: tell.__name__)
def test_a_bad_history_is_flagged_by_its_name_alone(story: Story, tell: Callable[[Story], None]) -> None:
    tell(story)
    report = story.report()
    assert report.kinds == {tell.__name__.split("_")[0]}, report.examples
    assert not report.clean


def test_every_anomaly_has_a_bad_history() -> None:
    assert {tell.__name__.split("_")[0] for tell in BAD} == set(KINDS)
