"""The benchmark on the real server: the command of `make bench`, small."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.settings import ROOT
from bench.__main__ import app


async def bench(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 100)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode()


@pytest.mark.timeout(120)
@pytest.mark.slow
async def test_a_small_round_is_clean_and_written_as_json(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    shape = ["--users", "20", "--group-size", "10", "--senders", "20", "--rate", "2", "--duration", "2"]
    code, output = await bench("ingest", *shape, "--check", "--json", str(figures))
    assert code == 0, output
    found = json.loads(figures.read_text())
    assert found["machine"]["cores"] >= 1
    runs = found["scenarios"]["ingest"]["runs"]
    assert len(runs) == 1
    for run in runs:
        assert run["connected"] == 20
        assert run["acked"] == run["sent"] == 80
        assert run["delivered"] == 80 * 9
        assert run["anomalies"]["found"] == {}
        assert run["anomalies"]["unread_groups"] == 0
        assert set(run["cpu_us_per_message"]) == {"server", "postgres", "valkey", "generator"}
        assert run["memory_mb"]["server"] > 20
        assert run["server"]["stage commit"]["count"] > 0
    assert found["scenarios"]["ingest"]["median"]["ack"]["p99"] > 0


@pytest.mark.timeout(120)
@pytest.mark.slow
async def test_a_small_search_finds_what_a_plain_scan_finds(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    size = ["--messages", "2000", "--groups", "10", "--mine", "2", "--queries", "8", "--requests", "80"]
    # As many at a time as make bench ARGS="search".
    code, output = await bench("search", *size, "--json", str(figures))
    assert code == 0, output
    found = json.loads(figures.read_text())
    assert found["compared"] == 8
    assert found["hits"] >= 8
    assert found["different"] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ingest", "--url", "http://127.0.0.1:1"], "needs --dsn and --secret"),
        (["ingest", "--users", "5"], "needs as many users"),
        (["ingest", "--set", "nothing"], "write section.key=value"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(arguments: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert sentence in " ".join(done.output.split())
