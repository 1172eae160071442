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


@pytest.mark.may_block
def test_a_row_done_elsewhere_stays_until_it_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "REPORT", tmp_path / "report.md")
    monkeypatch.setattr(results, "FOLDER", tmp_path / "there")
    for stage, row, seed in ((STAGE, ROW, 7), (STAGE, "consumer killed", 8), ("redis_streams", ROW, 9)):
        Result(row, stage, seed, "0000000", [0.5], acked=10, resent=0, events=1000, lasted_s=90.0).keep()
    write_report()
    there = results.REPORT.read_text()
    monkeypatch.setattr(results, "FOLDER", tmp_path / "here")
    write_report()
    assert results.REPORT.read_text() == there
    Result(ROW, STAGE, 17, "1111111", [0.5], acked=10, resent=0, events=1000, lasted_s=90.0).keep()
    write_report()
    assert results.REPORT.read_text() == there.replace("| 7 | 0000000 |", "| 17 | 1111111 |")
    assert there.count("| 1,000 | 1.5 min |") == 3
