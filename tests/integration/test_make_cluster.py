"""`make cluster`, as somebody types it: in a folder of their own, with Kafka and etcd."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from app.settings import ROOT
from local.ports import free_range
from tests.services import need_kafka

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.timeout(200)]

READY_S, STOPPED_S = 120, 60


@pytest.mark.may_block
async def test_it_starts_says_where_everything_is_and_stops_in_order(tmp_path: Path) -> None:
    await need_kafka()
    port, metrics_port = free_range(3), free_range(3)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local", "--broker", "kafka", "--registry", "etcd", "--no-nginx"),
        *("--gateways", "1", "--consumers", "1", "--port", str(port), "--metrics-port", str(metrics_port)),
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "IM_DATA_DIR": "mine",
            "IM_EMBEDDED__POSTGRES_SHARED_BUFFERS_MB": "16",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = ""
    try:
        assert process.stdout is not None
        async with asyncio.timeout(READY_S):
            while "stop " not in said:
                line = await process.stdout.readline()
                assert line, said
                said += line.decode()
        async with aiohttp.ClientSession() as http, http.get(f"http://localhost:{port}/api/v1/me") as answer:
            assert answer.status == 401
        look = await asyncio.create_subprocess_shell(
            f". mine/cluster/env && {sys.executable} {ROOT}/run.py cluster status", cwd=tmp_path, stdout=-1, stderr=-1
        )
        shown, errors = await look.communicate()
        assert look.returncode == 0, errors.decode()
        assert all(name in shown.decode() for name in ("api1", "gateway1", "consumer1", "etcd"))
        reading = asyncio.create_task(process.stdout.read())
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOPPED_S):
            assert await process.wait() == 0, said + (await reading).decode()
        await reading
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine"]
