"""The stores that conftest.py gives to tests keep what it promises."""

import os

import pytest
from blockbuster import BlockingError

from app.settings import ROOT, load
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.postgres import Postgres
from app.storage.redis import UNAVAILABLE, Redis, connect

INSERT = "INSERT INTO worker_leases VALUES (1, 'test', now())"


@pytest.mark.parametrize("round_", [1, 2])
async def test_every_test_finds_migrated_and_empty_stores(round_: int, postgres: Postgres, redis: Redis) -> None:
    assert await postgres.fetchval("SELECT count(*) FROM worker_leases") == 0
    assert await redis.dbsize() == 0
    await postgres.execute(INSERT)
    await redis.set("left", "behind")


async def test_a_valkey_can_be_stopped_and_comes_back_empty(breakable_valkey: ValkeyProcess) -> None:
    client = connect(breakable_valkey.url, pool_max=1, connect_timeout_s=1, command_timeout_s=1)
    await client.set("a", "b")
    await breakable_valkey.stop()
    with pytest.raises(UNAVAILABLE):
        await client.get("a")
    await breakable_valkey.start()
    assert await client.get("a") is None
    await client.aclose()


BLOCKING = compile("import time; time.sleep(0)", str(ROOT / "app" / "blocking.py"), "exec")
"""Looks like code of the application."""


async def test_blocking_calls_on_the_event_loop_are_found() -> None:
    with pytest.raises(BlockingError):
        exec(BLOCKING)  # noqa: S102 - our own line above


@pytest.mark.may_block
async def test_blocking_calls_can_be_allowed() -> None:
    exec(BLOCKING)  # noqa: S102 - our own line above


def test_the_environment_of_the_shell_is_not_used() -> None:
    assert load().env == "test"
    assert [name for name in os.environ if name.startswith("IM_")] == ["IM_ENV"]
