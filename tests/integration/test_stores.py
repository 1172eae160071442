"""The stores that conftest.py gives to tests keep what it promises."""

import asyncio
import os
import time

import asyncpg
import pytest
from blockbuster import BlockingError

from app.errors import Busy
from app.lifecycle import Readiness
from app.settings import ROOT, load
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.postgres import Postgres
from app.storage.probe import FULL, StoreProbe
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


IDLE_S = 0.2


@pytest.mark.parametrize("asleep", [False, True], ids=["vanished", "asleep"])
async def test_who_sleeps_in_a_transaction_holds_its_locks_for_a_bounded_time(dsn: str, asleep: bool) -> None:
    limits = {"connect_timeout_s": 5.0, "command_timeout_s": 5.0, "acquire_timeout_s": 5.0}
    sleeper = Postgres(dsn, pool_min=1, pool_max=1, idle_in_transaction_s=IDLE_S, **limits)
    other = await asyncpg.connect(dsn)
    held_up_s: list[float] = []

    async def sleep() -> None:
        async with sleeper.transaction() as connection:
            await connection.execute(INSERT)
            since = time.monotonic()
            if asleep:
                time.sleep(2 * IDLE_S)  # noqa: ASYNC251 - like a process that is stopped it hears of nothing meanwhile
            else:
                await other.execute(INSERT)
            held_up_s.append(time.monotonic() - since)
            await connection.execute("SELECT 1")

    await sleeper.start()
    with pytest.raises(Busy):
        async with asyncio.timeout(10):
            await sleep()
    assert held_up_s, "the other one never got the lock"
    assert await sleeper.fetchval("SELECT count(*) FROM worker_leases") == int(not asleep)
    await other.close()
    await sleeper.stop()


async def test_a_connection_of_which_the_driver_lost_track_is_used_by_nobody_again(postgres: Postgres) -> None:
    lost: list[int] = []

    async def insert() -> None:
        async with postgres.transaction() as connection:
            await connection.execute(INSERT)
            lost.append(await connection.fetchval("SELECT pg_backend_pid()"))
            raise asyncpg.InternalClientError("got result for unknown protocol state 3")

    with pytest.raises(Busy) as raised:
        await insert()
    assert raised.value.outcome == "none"
    found = {await postgres.fetchval("SELECT pg_backend_pid()") for _ in range(20)}
    assert not found.intersection(lost)
    assert await postgres.fetchval("SELECT count(*) FROM worker_leases") == 0


async def test_a_postgresql_without_a_connection_left_is_not_taken_for_silent(dsn: str, redis: Redis) -> None:
    admin = await asyncpg.connect(dsn)
    await admin.execute("CREATE ROLE crowd LOGIN CONNECTION LIMIT 1")
    postgres = Postgres(
        dsn.replace("magpie@", "crowd@"),
        pool_min=1,
        pool_max=2,
        connect_timeout_s=5,
        command_timeout_s=5,
        acquire_timeout_s=5,
    )
    await postgres.start()
    readiness = Readiness()
    probe = StoreProbe(postgres, redis, readiness, interval_s=0.01, timeout_s=10)
    probing = asyncio.ensure_future(probe.run())
    try:
        async with asyncio.timeout(20), postgres.connection():
            while not readiness.reasons:
                await asyncio.sleep(0.01)
            assert readiness.reasons == {"postgres": FULL}
    finally:
        probing.cancel()
        await asyncio.wait({probing})
        await postgres.stop()
        await admin.execute("DROP ROLE crowd")
        await admin.close()
