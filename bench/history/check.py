"""Finds the anomalies of a history. Every check is at most n log n in the number of events."""

from collections import defaultdict

from bench.history.anomalies import Report
from bench.history.model import NEVER, Group, History, Key, differ
from bench.history.order import check_order
from bench.history.records import Item
from bench.history.unseen import UNSEEN_AFTER_S, check_unseen

Truths = dict[int, dict[int, Item]]
"""Group → seq → what history says, else what was shown."""


def check(history: History, *, unseen_after_s: float = UNSEEN_AFTER_S) -> Report:
    """Judge a history; the meaning of each anomaly stands in `anomalies.py`."""
    report = Report(events=history.events, sends=len(history.sends), groups=len(history.groups))
    report.acked = sum(1 for send in history.sends.values() if send.acks)
    report.shown = sum(len(view.first) for view in history.views.values())
    truths = {number: group.truth() for number, group in history.groups.items()}
    seqs = _seqs_by_key(history)
    _check_duplicate(history, seqs, report)
    for number, group in history.groups.items():
        _check_shown(number, group, truths[number], history, report)
        _check_gap(number, group, report)
    _check_acks(history, truths, report)
    _check_lost(history, report)
    check_order(history, {key: min(found) for key, found in seqs.items()}, report)
    check_unseen(history, truths, round(unseen_after_s * 1e9), report)
    return report


def _key(group: int, item: Item) -> Key:
    return Key(group, item.sender, item.client_msg_id)


def _name(key: Key) -> str:
    return f"message {key.client_msg_id} of sender {key.sender} in group {key.group}"


def _seqs_by_key(history: History) -> dict[Key, set[int]]:
    """Message → the seqs under which it was shown."""
    seqs: dict[Key, set[int]] = defaultdict(set)
    for number, group in history.groups.items():
        for items in (group.history.values(), group.items.values(), group.others):
            for item in items:
                seqs[_key(number, item)].add(item.seq)
    return seqs


def _check_duplicate(history: History, seqs: dict[Key, set[int]], report: Report) -> None:
    for key in {*seqs, *history.sends}:
        send = history.sends.get(key)
        found = seqs.get(key, set()) | ({seq for seq, _ in send.acks} if send else set())
        if len(found) > 1:
            report.add("duplicate", key.group, f"{_name(key)} has seqs {sorted(found)}")


def _check_shown(number: int, group: Group, truth: dict[int, Item], history: History, report: Report) -> None:
    """Phantom, aborted, divergent: messages that should not be there, or not like this."""
    contradictions = group.contradictions(truth)
    for item in contradictions:
        report.add("divergent", number, f"seq {item.seq} is {truth[item.seq]} and also {item}")
    for items, certain in ((truth.values(), True), (contradictions, False)):
        for item in items:
            key = _key(number, item)
            send = history.sends.get(key)
            outcomes = {a.outcome for a in send.attempts if a.digest == item.digest} if send else set()
            if send is None:
                report.add("phantom", number, f"{_name(key)} at seq {item.seq} was never sent")
            elif not outcomes and certain:
                report.add("phantom", number, f"{_name(key)} at seq {item.seq} was sent with another body")
            elif outcomes == {"fail"}:
                report.add("aborted", number, f"{_name(key)} is at seq {item.seq}, though every attempt was refused")


def _check_acks(history: History, truths: Truths, report: Report) -> None:
    """Divergent: an ack that names another message id than the message has."""
    for key, send in history.sends.items():
        for seq, message_id in send.acks:
            found = truths[key.group].get(seq)
            if found is None or (found.sender, found.client_msg_id) != key[1:]:
                continue  # absent: then it is lost or duplicate
            if differ(found, found._replace(message_id=message_id)):
                report.add("divergent", key.group, f"seq {seq} was acked as {message_id} and is {found}")


def _check_gap(number: int, group: Group, report: Report) -> None:
    for read in group.reads.values():
        present = {item.seq for item in read.items}
        missing = [seq for seq in range(1, max(present, default=0) + 1) if seq not in present]
        if missing:
            report.add("gap", number, f"member {read.member} reads no seq {missing[:10]} ({len(missing)} in all)")


def _check_lost(history: History, report: Report) -> None:
    """A message must be in every history that somebody began to read after it was acked or shown."""
    proven: dict[int, dict[Key, int]] = defaultdict(dict)
    for key, send in history.sends.items():
        if send.acked < NEVER:
            proven[key.group][key] = send.acked
    for number, group in history.groups.items():
        since = proven[number]
        for seq, t in group.shown.items():
            key = _key(number, group.items[seq])
            since[key] = min(since.get(key, NEVER), t)
        reads = [(read, {_key(number, item) for item in read.items}) for read in group.reads.values()]
        for read, keys in reads:
            for key in keys:
                since[key] = min(since.get(key, NEVER), read.done)
        if since and not reads:
            report.unread_groups += 1
        missing: dict[Key, int] = {}
        for read, keys in reads:
            for key, t in since.items():
                if t < read.began and key not in keys and key in history.sends:
                    missing.setdefault(key, read.member)
        for key, member in missing.items():
            what = "acked" if history.sends[key].acks else "shown"
            report.add("lost", number, f"{_name(key)} was {what}, member {member} does not read it")
