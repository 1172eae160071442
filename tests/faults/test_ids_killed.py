"""Many id generators, their processes killed at any moment and followed by others: no id twice."""

import asyncio
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import ROOT
from app.storage.postgres import Postgres

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

WORKER_IDS = [3, 4, 5]
"""Fewer than processes started, so that each is taken over from a killed one."""
KILLS = 6
IDS_BEFORE_KILL = 5_000
DEADLINE_S = 60.0

STAMPER = """
import asyncio, os, struct, sys
from app.errors import Busy
from app.ids import Snowflake, SnowflakeLease
from app.lifecycle import Readiness
from app.storage.postgres import Postgres
from app.storage.worker_leases import WorkerLeaseRepository

async def main(dsn, path):
    postgres = Postgres(dsn, pool_min=1, pool_max=1, connect_timeout_s=10, command_timeout_s=10, acquire_timeout_s=10)
    await postgres.start()
    ids = Snowflake(max_backward_ms=5)
    lease = SnowflakeLease(WorkerLeaseRepository(postgres), ids, Readiness(), lease_s=0.5, renew_s=0.1)
    running = asyncio.create_task(lease.run())
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while not running.done():
        try:
            stamped = ids.stamp(100)
        except Busy:
            stamped = []
        os.write(file, struct.pack(f"<{len(stamped)}q", *stamped))
        await asyncio.sleep(0.001)
    await running

asyncio.run(main(*sys.argv[1:]))
"""


def stamped_in(path: Path) -> list[int]:
    data = path.read_bytes() if path.exists() else b""
    return list(struct.unpack(f"<{len(data) // 8}q", data[: len(data) // 8 * 8]))


async def test_generators_that_are_killed_and_replaced_never_stamp_the_same_id(
    dsn: str, postgres: Postgres, tmp_path: Path
) -> None:
    await postgres.execute(
        """
        INSERT INTO worker_leases
        SELECT n, 'other', CASE WHEN n = ANY ($1::int[]) THEN timestamptz 'epoch' ELSE now() + interval '1 day' END
        FROM generate_series(0, 1023) AS n
        """,
        WORKER_IDS,
    )
    files: list[Path] = []
    running: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start() -> None:
        path = tmp_path / f"ids-{len(files)}"
        command = [sys.executable, "-c", STAMPER, dsn, str(path)]
        # Its log would only say that it waits for a worker id.
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}, stdout=subprocess.DEVNULL)
        running.append((process, path))
        files.append(path)

    try:
        for _ in WORKER_IDS:
            start()
        async with asyncio.timeout(DEADLINE_S):
            for kill in range(KILLS + len(WORKER_IDS)):
                # The first in the list, so that every process gets its turn; at a random moment of its work.
                process, path = running.pop(0)
                enough = random.randint(1, IDS_BEFORE_KILL)  # noqa: S311 - not a secret
                while len(stamped_in(path)) < enough:
                    assert process.poll() is None, "the generator ended by itself"
                    await asyncio.sleep(0.005)
                process.kill()
                process.wait()
                if kill < KILLS:
                    start()
    finally:
        for process, _ in running:
            process.kill()
            process.wait()
    stamped = [snowflake for path in files for snowflake in stamped_in(path)]
    assert {snowflake >> 12 & 1023 for snowflake in stamped} == set(WORKER_IDS)
    assert len(files) == KILLS + len(WORKER_IDS)
    assert len(set(stamped)) == len(stamped)
