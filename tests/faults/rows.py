"""One row of a full fault run: skipped when it passed before, done under load, judged, and kept."""

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from pathlib import Path

import pytest

from local.cluster import Cluster
from tests.cable import Cable
from tests.faults.conftest import FULL, Trial
from tests.faults.harms import Ground, Harm
from tests.faults.load import Load
from tests.faults.results import FOLDER, Result, current_commit, keep_failure, kept

ROW_S = 1800
log = logging.getLogger("faults")


async def do(
    harm: Harm, cluster: Cluster, load: Load, trial: Trial, *, row: str, times: int, cables: Sequence[Cable] = ()
) -> tuple[list[float], float]:
    """Do it so often; the seconds until recovery of each, and by how many MB a gateway grew in an outage."""
    broker = "kafka" if cluster.kafka else "redis_streams"
    ground = Ground(cluster, load, trial.chance, broker, harm.away_s[0 if FULL else 1], cables=cables)
    took = []
    for number in range(times):
        took.append(await harm.once(ground))
        log.info("%s: %s %d/%d: %.1f s %s", broker, row, number + 1, times, took[-1], harm.measure)
        assert took[-1] <= harm.limit_s, f"{row}: {took[-1]:.1f} s, at most {harm.limit_s:g} s; {load.summary()}"
    return took, ground.grown_mb


def skip_what_passed(stage: str, row: str) -> None:
    """Skips a row whose result is kept."""
    if any(result.row == row for result in kept(stage)) and not os.environ.get("FAULTS_AGAIN"):
        pytest.skip(f"passed before, see {FOLDER}; FAULTS_AGAIN=1 does it again")


async def do_row(
    stage: str,
    row: str,
    harm: Harm,
    cluster: Cluster,
    trial: Trial,
    loading: AbstractAsyncContextManager[Load],
    cables: Sequence[Cable] = (),
) -> None:
    """Do a row in full under this load, and keep its result, or the history in which it failed."""
    since = time.monotonic()
    try:
        async with loading as load:
            took, grown_mb = await do(harm, cluster, load, trial, row=row, times=harm.full, cables=cables)
    except BaseException:
        await asyncio.to_thread(keep_failure, trial.history, stage, row, trial.seed)
        raise
    tally = load.tally
    events = await asyncio.to_thread(_lines, trial.history)
    lasted_s = time.monotonic() - since
    commit = await asyncio.to_thread(current_commit)
    errors = dict(tally.errors)
    result = Result(
        row,
        stage,
        trial.seed,
        commit,
        took,
        tally.acked,
        tally.resent,
        events,
        lasted_s,
        grown_mb,
        errors,
        tally.refused[HTTPStatus.SERVICE_UNAVAILABLE],
    )
    await asyncio.to_thread(result.keep)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
