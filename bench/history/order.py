"""Contract line 3: one order for all, and it is the order of sending."""

from bench.history.anomalies import Report
from bench.history.model import History, Key

Span = tuple[int, int, int, str]
"""(begin, end, seq, client_msg_id): whatever begins after `end` must have a higher seq."""


def check_order(history: History, seqs: dict[Key, int], report: Report) -> None:
    """Reorder: by connection, by real time, and as shown. `seqs` says under which seq a message is known.

    A message that was tried more than once may have been accepted at any try that was not refused and not begun after its first ack.
    So only what holds for every such try is demanded.
    """
    by_conn: dict[tuple[str, int], list[Span]] = {}
    by_group: dict[int, list[Span]] = {}
    for key, send in history.sends.items():
        seq = seqs.get(key)
        tries = send.candidates()
        if seq is None or not tries:
            continue
        name = key.client_msg_id
        by_group.setdefault(key.group, []).append((min(a.t for a in tries), send.acked, seq, name))
        conn = tries[0].conn
        if all(a.conn == conn for a in tries):
            orders = [a.order for a in tries]
            by_conn.setdefault((conn, key.group), []).append((min(orders), max(orders), seq, name))
    for (conn, group), spans in by_conn.items():
        for first, second in _inversions(spans):
            report.add("reorder", group, f"connection {conn} sent {_name(first)} before {_name(second)}")
    for group, spans in by_group.items():
        for first, second in _inversions(spans):
            report.add("reorder", group, f"{_name(first)} was acked before {_name(second)} was begun")
    for group, detail in history.misordered:
        report.add("reorder", group, detail)


def _name(span: Span) -> str:
    return f"{span[3]} (seq {span[2]})"


def _inversions(spans: list[Span]) -> list[tuple[Span, Span]]:
    """For each span that has a lower seq than one which ended before it began: the highest such one, and the span."""
    found = []
    ended = sorted(spans, key=lambda span: span[1])
    position, highest = 0, (0, 0, 0, "")
    for span in sorted(spans):
        while position < len(ended) and ended[position][1] < span[0]:
            if ended[position][2] > highest[2]:
                highest = ended[position]
            position += 1
        if highest[2] > span[2]:
            found.append((highest, span))
    return found
