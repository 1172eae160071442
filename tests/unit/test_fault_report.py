"""What the report of the fault tests says of each row: with which commit it passed, and which tries failed."""

from pathlib import Path

import pytest

from tests.faults import results
from tests.faults.results import Result, keep_failure, write_report

ROW, STAGE = "consumers come and go", "kafka"


@pytest.mark.may_block
def test_rows_name_their_commit_and_failed_tries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "REPORT", tmp_path / "report.md")
    monkeypatch.setattr(results, "current_commit", lambda: "abc1234+")
    Result(ROW, STAGE, 7, "0000000", [0.5], acked=10, resent=0, events=100, lasted_s=60.0).keep()
    history = tmp_path / "history.jsonl"
    keep_failure(history, STAGE, "poison, one in 1,000", 3)
    history.touch()
    keep_failure(history, STAGE, ROW, 8)
    (tmp_path / "failed" / f"{STAGE}-consumers-come-and-go-9.jsonl").touch()
    write_report()
    report = results.REPORT.read_text()
    assert f"| {ROW} (age of the oldest unanswered send, P99) | 1 |" in report
    assert "| 7 | 0000000 |" in report
    assert f"**Tries that failed and were kept:** {ROW} (seed 8, commit abc1234+), {ROW} (seed 9).\n" in report
    assert "poison, one in 1,000 (seed" not in report
