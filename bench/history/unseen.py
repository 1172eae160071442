"""Contract line 5: an online client has every message within 15 s, whatever was lost on the way."""

from bench.history.anomalies import Report
from bench.history.model import NEVER, Group, History, View
from bench.history.records import Item

UNSEEN_AFTER_S = 15.0

Existing = list[tuple[int, int]]
"""(seq, since when it certainly existed), both rising."""


def check_unseen(history: History, truths: dict[int, dict[int, Item]], within: int, report: Report) -> None:
    """Unseen: a client was online for `within` ns after a message existed and still had not got it.

    Clients are responsible for what lies above their cursor. A message existed at the latest when it, or a later one of its group, was
    acked, shown or read. Time begins anew when a client comes back, because it may come back at the last moment.
    """
    acked: dict[int, dict[int, int]] = {number: {} for number in history.groups}
    for key, send in history.sends.items():
        for seq, _ in send.acks:
            acked[key.group][seq] = min(acked[key.group].get(seq, NEVER), send.acked)
    existing = {
        number: _existing(group, group.history or truths[number], acked[number])
        for number, group in history.groups.items()
    }
    for (client, number), view in history.views.items():
        if number in existing:
            _check_view(client, number, view, history.end, existing[number], within, report)


def _existing(group: Group, items: dict[int, Item], acked: dict[int, int]) -> Existing:
    read: dict[int, int] = {}
    for reading in group.reads.values():
        for item in reading.items:
            read[item.seq] = min(read.get(item.seq, NEVER), reading.done)
    found: Existing = []
    since = NEVER
    for seq in sorted(items, reverse=True):
        since = min(since, acked.get(seq, NEVER), group.shown.get(seq, NEVER), read.get(seq, NEVER))
        found.append((seq, since))
    found.reverse()
    return found


def _check_view(client: str, group: int, view: View, end: int, existing: Existing, within: int, report: Report) -> None:
    intervals = list(view.intervals)
    if view.online_since is not None:
        intervals.append((view.online_since, end))
    long_enough = [(a, b) for a, b in intervals if b - a >= within]
    position = 0
    for seq, since in existing:
        arrived = min(view.first.get(seq, NEVER), view.acked.get(seq, NEVER))
        if arrived - since <= within or seq <= (view.cursor or 0):
            continue
        # `since` rises with seq, so an interval that ended too early for this message did so for all later ones.
        while position < len(long_enough) and long_enough[position][1] < since + within:
            position += 1
        if position < len(long_enough):
            deadline = max(long_enough[position][0], since) + within
            if arrived > deadline:
                waited = "never" if arrived == NEVER else f"{(arrived - deadline) / 1e9:.1f} s too late"
                report.add("unseen", group, f"seq {seq} reached client {client} {waited}")
        elif arrived == NEVER and view.online_since is not None:
            report.unjudged += 1
