"""Worker ids are leased in PostgreSQL: one holder at a time, and a successor begins where the last holder ended."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from app.errors import Busy
from app.ids import WORKERS, Snowflake, SnowflakeLease, timestamp_ms, wall_ms
from app.lifecycle import Readiness, Supervisor
from app.storage.postgres import Postgres
from app.storage.worker_leases import WorkerLeaseRepository

pytestmark = pytest.mark.timeout(60)
DEADLINE_S = 20.0


class Holder:
    """A process with ids, as far as ids are concerned."""

    def __init__(self, postgres: Postgres, *, lease_s: float = 30.0, clock_ms: Callable[[], int] = wall_ms) -> None:
        self.readiness = Readiness()
        self.ids = Snowflake(max_backward_ms=5, clock_ms=clock_ms)
        self.lease = SnowflakeLease(
            WorkerLeaseRepository(postgres), self.ids, self.readiness, lease_s=lease_s, renew_s=lease_s / 5
        )

    @property
    def worker_id(self) -> int | None:
        return None if self.ids.lease is None else self.ids.lease.worker_id

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        died: list[str] = []
        supervisor = Supervisor(died.append)
        supervisor.spawn(self.lease.run(), "worker_lease")
        try:
            yield
        finally:
            await supervisor.stop(5)
        assert not died

    async def until(self, *, ready: bool) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not (ready == self.ids.ready == (not self.readiness.reasons)):
                await asyncio.sleep(0.01)


async def leave_free(postgres: Postgres, *free: int) -> None:
    """Lease all worker ids but `free` to others, for good."""
    await postgres.execute(
        """
        INSERT INTO worker_leases
        SELECT n, 'other', CASE WHEN n = ANY ($1::int[]) THEN timestamptz 'epoch' ELSE now() + interval '1 day' END
        FROM generate_series(0, $2::int - 1) AS n
        """,
        list(free),
        WORKERS,
    )


async def test_processes_that_start_at_once_get_different_worker_ids(postgres: Postgres) -> None:
    holders = [Holder(postgres) for _ in range(20)]
    await asyncio.gather(*(holder.lease.acquire() for holder in holders))
    assert len({holder.worker_id for holder in holders}) == len(holders)
    stamped = [snowflake for holder in holders for snowflake in holder.ids.stamp(5000)]
    assert len(set(stamped)) == len(stamped)


async def test_when_all_worker_ids_are_leased_the_error_says_so(postgres: Postgres) -> None:
    await leave_free(postgres, 3)
    first, second = Holder(postgres), Holder(postgres)
    await first.lease.acquire()
    assert first.worker_id == 3
    with pytest.raises(Busy, match="all 1024 worker ids are leased; stop processes"):
        await second.lease.acquire()
    async with second.running():
        await second.until(ready=False)
        assert "all 1024" in second.readiness.reasons["ids"]


async def test_renewing_extends_the_lease_and_never_shortens_it(postgres: Postgres) -> None:
    holder = Holder(postgres)
    await holder.lease.acquire()
    before = holder.ids.lease
    await asyncio.sleep(0.005)  # the end is counted in ms from now
    await holder.lease.renew()
    after = holder.ids.lease
    assert before is not None and after is not None
    assert after.worker_id == before.worker_id and after.until_ms > before.until_ms
    # As if the database's clock had since gone back: ids up to the end may be stamped already.
    await postgres.execute("UPDATE worker_leases SET not_after = now() + interval '1 hour' WHERE holder <> ''")
    await holder.lease.renew()
    assert holder.ids.lease is not None and holder.ids.lease.until_ms > wall_ms() + 3_500_000


async def test_a_lease_that_ran_out_is_renewed_unless_another_took_it(postgres: Postgres) -> None:
    await leave_free(postgres, 3, 4)
    first, second = Holder(postgres), Holder(postgres)
    await first.lease.acquire()
    await postgres.execute("UPDATE worker_leases SET not_after = now() - interval '1 ms' WHERE worker_id = 3")
    await first.lease.renew()
    assert first.worker_id == 3
    await postgres.execute("UPDATE worker_leases SET not_after = now() - interval '1 ms' WHERE worker_id = 3")
    await postgres.execute("UPDATE worker_leases SET not_after = now() + interval '1 hour' WHERE worker_id = 4")
    await second.lease.acquire()
    assert second.worker_id == 3
    await postgres.execute("UPDATE worker_leases SET not_after = 'epoch' WHERE worker_id = 4")
    await first.lease.renew()
    assert first.worker_id == 4


async def test_a_successor_whose_clock_is_behind_waits_for_the_end_of_its_predecessor(postgres: Postgres) -> None:
    await leave_free(postgres, 3)
    first = Holder(postgres)
    await first.lease.acquire()
    assert first.ids.lease is not None
    end_ms = first.ids.lease.until_ms
    late_ms = wall_ms() - 3_600_000
    second = Holder(postgres, clock_ms=lambda: late_ms)
    await postgres.execute(
        "UPDATE worker_leases SET not_after = now() - interval '1 ms', holder = 'gone' WHERE worker_id = 3"
    )
    ended_ms = await postgres.fetchval(
        "SELECT extract(epoch FROM not_after) * 1000 FROM worker_leases WHERE worker_id = 3"
    )
    await second.lease.acquire()
    assert "before the end of the last holder" in str(second.ids.reason)
    with pytest.raises(Busy):
        second.ids.stamp(1)
    late_ms = int(ended_ms)
    assert not second.ids.ready
    late_ms = int(ended_ms) + 1
    assert timestamp_ms(second.ids.stamp(1)[0]) == late_ms < end_ms


async def test_after_an_orderly_end_the_successor_begins_at_once(postgres: Postgres) -> None:
    await leave_free(postgres, 3)
    first, second = Holder(postgres), Holder(postgres)
    await first.lease.acquire()
    last = first.ids.stamp(3)[-1]
    await first.lease.release()
    assert not first.ids.ready
    async with asyncio.timeout(DEADLINE_S):
        async with second.running():
            await second.until(ready=True)
            assert second.worker_id == 3 and second.ids.stamp(1)[0] > last


async def test_a_lease_is_renewed_in_the_background(postgres: Postgres) -> None:
    holder = Holder(postgres, lease_s=0.5)
    async with holder.running():
        await holder.until(ready=True)
        first = holder.ids.lease
        async with asyncio.timeout(DEADLINE_S):
            while holder.ids.lease == first:
                await asyncio.sleep(0.01)
        second = holder.ids.lease
        assert first is not None and second is not None
        assert second.worker_id == first.worker_id and second.from_ms == first.from_ms
        assert second.until_ms > first.until_ms and second.deadline_s > first.deadline_s


async def test_without_the_database_the_lease_runs_out_and_comes_back_with_it(postgres: Postgres) -> None:
    holder = Holder(postgres, lease_s=0.5)
    async with holder.running():
        await holder.until(ready=True)
        await postgres.stop()
        await holder.until(ready=False)
        with pytest.raises(Busy):
            holder.ids.stamp(1)
        await postgres.start()
        await holder.until(ready=True)
        assert len(holder.ids.stamp(1)) == 1


async def test_a_clock_set_back_makes_the_process_not_ready_until_it_has_caught_up(postgres: Postgres) -> None:
    back_ms = 0
    holder = Holder(postgres, clock_ms=lambda: wall_ms() - back_ms)
    async with holder.running():
        await holder.until(ready=True)
        before = holder.ids.stamp(1)[0]
        back_ms = 3_600_000
        with pytest.raises(Busy):
            holder.ids.stamp(1)
        await holder.until(ready=False)
        assert "the clock went back" in holder.readiness.reasons["ids"]
        back_ms = 0
        await holder.until(ready=True)
        assert holder.ids.stamp(1)[0] > before


async def test_holders_abandoned_one_after_another_never_stamp_the_same_id(postgres: Postgres) -> None:
    await leave_free(postgres, 3)
    stamped: list[int] = []
    workers = set()
    clocks = random.Random(7)  # noqa: S311 - reproducible clock errors
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(25):
            wrong_ms = clocks.randint(-30, 30)
            holder = Holder(postgres, lease_s=0.05, clock_ms=lambda wrong_ms=wrong_ms: wall_ms() + wrong_ms)  # type: ignore[misc]  # a lambda with a default
            while holder.worker_id is None:
                try:
                    await holder.lease.acquire()
                except Busy:
                    # The abandoned lease has not run out yet.
                    continue
            workers.add(holder.worker_id)
            for _ in range(clocks.randint(1, 20)):
                try:
                    stamped += holder.ids.stamp(clocks.randint(1, 5000))
                except Busy:
                    await asyncio.sleep(0)
    assert workers == {3}
    assert len(stamped) > 10_000 and len(set(stamped)) == len(stamped)
