"""The history checker: what clients did and saw, as JSON lines, and whether that keeps the delivery contract.

    with Recorder(path) as record:
        op = record.invoke(group=7, sender=1, client_msg_id=key, digest=digest("text", body), conn="c1", client="alice")
        record.ok(op, seq=1)
        record.seen(client="bob", conn="c2", group=7, items=[item])
        record.final_history(member=2, group=7, items=items, began=began)
    report = check(load([path]))

`python -m bench.history FILE…` prints the report. The anomalies are explained in `anomalies.py`.
"""

from bench.history.anomalies import KINDS, Anomaly, Report
from bench.history.check import check
from bench.history.load import load
from bench.history.model import History, HistoryError
from bench.history.recorder import Recorder
from bench.history.records import Item, digest

__all__ = ["KINDS", "Anomaly", "History", "HistoryError", "Item", "Recorder", "Report", "check", "digest", "load"]
