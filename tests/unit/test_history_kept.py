"""Histories in which a fault run failed, cut down to one group: the checker must go on finding what it found then.

`tests/histories/<what happened>.<anomaly>-<how often>.jsonl`. What is known of the cause stands here.

half-open-down: gateways were restarted in turn while three such loads had the machine. Five of 4,000 connections through Nginx and TLS
brought what their members sent and no answer, no message and no pong for up to 160 s. It was the load's own WebSocket library, which had
stopped reading them in the name of connections that were given up in the row before (see `tests/faults/socket.py`); and the member did not
know rule 11 of the protocol, by which a client takes such a connection for dead. Now it does.
"""

from pathlib import Path

import pytest

from bench.history import check, load

KEPT = sorted((Path(__file__).parent.parent / "histories").glob("*.jsonl"))


@pytest.mark.may_block
@pytest.mark.parametrize("history", KEPT, ids=lambda path: path.stem)
def test_a_history_that_failed_once_is_still_found_wrong(history: Path) -> None:
    kind, _, count = history.stem.rpartition(".")[2].partition("-")
    report = check(load([history]))
    assert (dict(report.counts), report.unread_groups, report.unjudged) == ({kind: int(count)}, 0, 0)


def test_there_are_some() -> None:
    assert KEPT
