"""The load generator measures what it says it measures; tried on a double of the server whose faults are known."""

import itertools
import random
from collections import Counter
from pathlib import Path

import asyncpg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.modules.accounts.tokens import Tokens
from bench.latency import summarise
from bench.plan import Member, Progress, Shape
from bench.results import Backlog, RunResult, _backlog, median
from bench.run import Options, run_once
from bench.seed import group_count, layout, seed
from bench.server import Target
from bench.worker import make_schedule
from tests.bench_double import Double

SHAPE = Shape(users=12, group_size=4, groups_per_user=2, senders=6, rate=10, duration_s=1.0)
USERS, GROUPS = range(1, 13), range(101, 107)


class Silent:
    """Watches a run and says nothing."""

    def phase(self, name: str, total: float) -> None:
        pass

    def advance(self, done: float, progress: Progress) -> None:
        pass


@pytest.fixture
def double() -> Double:
    groups: dict[int, list[int]] = {}
    for user, joined in layout(USERS, GROUPS, SHAPE, 1).items():
        for group in joined:
            groups.setdefault(group, []).append(user)
    return Double(groups)


async def run(
    double: Double,
    folder: Path,
    *,
    shape: Shape = SHAPE,
    processes: int = 1,
    check: bool = True,
    drain_s: float = 10,
    slow: int = 0,
) -> RunResult:
    members = [
        Member(user, str(user), joined, user <= shape.senders, user > shape.users - slow)
        for user, joined in layout(USERS, GROUPS, shape, 1).items()
    ]
    options = Options(
        processes=processes, connect_rate=200, connect_timeout_s=5, readers_max=4, check=check, seed=1, drain_s=drain_s
    )
    async with double.serving():
        return await run_once(Target(double.url, "", "", None), members, shape, options, folder, Silent())


async def test_everything_is_sent_counted_and_checked(double: Double, tmp_path: Path) -> None:
    result = await run(double, tmp_path, processes=2)
    stored = sum(map(len, double.history.values()))
    assert result.connected == 12
    assert result.sent == result.acked == result.ack.count == stored
    assert 50 <= stored <= 60
    assert result.delivered == result.expected == result.delivery.count == 3 * stored
    assert result.drained
    assert 0 < result.ack.p50 <= result.ack.p99 <= result.ack.max < 1000
    assert 0 <= result.unanswered.max < stored
    assert result.cpu_us_per_message["generator"] > 0
    assert result.memory_mb["generator"] > 10
    assert not result.errors
    assert not result.closed
    assert result.anomalies is not None
    assert (result.anomalies.found, result.anomalies.unread_groups, result.anomalies.unjudged) == ({}, 0, 0)


def test_a_backlog_that_grows_shows_in_its_halves() -> None:
    assert _backlog([1, 3, 10, 20]) == Backlog(first_half=2, second_half=15, max=20)
    assert _backlog([]) == Backlog(0, 0, 0)


async def test_a_stall_of_the_server_counts_for_all_that_were_due_meanwhile(double: Double, tmp_path: Path) -> None:
    double.stall_s = 0.5
    result = await run(double, tmp_path, check=False)
    # At 60 messages a second about 30 are due during the stall; a generator that waits for answers would count one.
    assert result.acked == result.sent >= 50
    assert result.ack.p90 > 300
    assert 450 < result.ack.max < 2000
    assert result.late.p99 < 100


async def test_what_was_due_in_the_warm_up_is_shown_apart(double: Double, tmp_path: Path) -> None:
    double.stall_s = 0.5
    result = await run(double, tmp_path, shape=msgspec.structs.replace(SHAPE, warm_up_s=1.0))
    stored = sum(map(len, double.history.values()))
    assert result.sent == result.acked == result.ack.count == result.late.count
    assert result.delivered == result.expected == result.delivery.count == 3 * result.acked
    assert result.warm_up.count + result.ack.count == stored
    assert 50 <= result.warm_up.count <= 60
    assert 50 <= result.ack.count <= 60
    assert result.warm_up.max > 450 > result.ack.max
    assert result.drained
    assert result.anomalies is not None
    assert (result.anomalies.found, result.anomalies.unread_groups, result.anomalies.unjudged) == ({}, 0, 0)


async def test_what_is_acked_and_not_stored_is_called_lost(double: Double, tmp_path: Path) -> None:
    double.forget_seq = 2
    result = await run(double, tmp_path, drain_s=0.5)
    assert not result.drained
    assert result.anomalies is not None
    assert result.anomalies.found["lost"] == len([log for log in double.history.values() if len(log) > 1])


async def test_a_gap_is_pulled(double: Double, tmp_path: Path) -> None:
    double.announce_seq = 3
    result = await run(double, tmp_path)
    assert result.gaps > 0
    assert result.pulled >= result.gaps
    assert not result.pull_failures
    assert result.delivered == result.expected
    assert result.anomalies is not None
    assert result.anomalies.found == {}


async def test_refused_handshakes_are_tried_again(double: Double, tmp_path: Path) -> None:
    double.refuse_handshakes = 5
    result = await run(double, tmp_path, check=False)
    assert result.connected == 12
    assert not result.connect_failures
    assert result.connect.max > 50


async def test_closed_connections_are_part_of_the_result(double: Double, tmp_path: Path) -> None:
    double.close_at_seq = 3
    result = await run(double, tmp_path, drain_s=0.5)
    assert result.closed["4001"] > 0
    assert result.errors["disconnected/unknown"] >= result.closed["4001"]
    assert result.not_sent > 0
    assert result.connected == 12 - result.closed["4001"]
    assert result.anomalies is not None
    assert result.anomalies.found == {}


async def test_who_reads_nothing_is_expected_nothing(double: Double, tmp_path: Path) -> None:
    result = await run(double, tmp_path, check=False, slow=3)
    everybody = 3 * result.acked
    assert result.connected == 12
    assert result.drained
    assert everybody / 2 < result.expected < everybody
    assert result.delivered == result.expected == result.delivery.count


async def test_connections_are_kept_alive(double: Double, tmp_path: Path) -> None:
    double.heartbeat_s = 0.5
    await run(double, tmp_path, check=False)
    assert double.pings >= 12


@given(
    users=st.integers(1, 60),
    size=st.integers(1, 60),
    per_user=st.integers(1, 4),
    random_seed=st.integers(0, 5),
)
def test_everybody_is_in_as_many_full_groups_as_asked_for(
    users: int, size: int, per_user: int, random_seed: int
) -> None:
    shape = Shape(users=users, group_size=min(size, users), groups_per_user=per_user, senders=0, rate=0, duration_s=1)
    groups = range(1000, 1000 + group_count(shape))
    member_of = layout(range(users), groups, shape, random_seed)
    assert all(len(set(joined)) == per_user for joined in member_of.values())
    sizes = Counter(group for joined in member_of.values() for group in joined)
    assert len(sizes) == len(groups)
    assert max(sizes.values()) <= shape.group_size
    assert sum(size == shape.group_size for size in sizes.values()) >= per_user * (users // shape.group_size)


@pytest.mark.parametrize(
    "change",
    [
        {"users": 0},
        {"group_size": 13},
        {"senders": 13},
        {"duration_s": 0},
        {"duration_s": 4000},
        {"warm_up_s": -1},
        {"warm_up_s": 4000},
        {"rate": 1e9},
        {"body_chars": 19},
        {"body_chars": 2001},
    ],
)
def test_a_shape_that_cannot_be_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"."):
        msgspec.structs.replace(SHAPE, **change)


def test_send_times_are_even_for_each_sender_and_made_in_advance() -> None:
    members = [Member(user, "", [1], user < 50) for user in range(100)]
    schedule = make_schedule(members, 5, 4, random.Random(1))  # noqa: S311 - send times
    assert schedule == sorted(schedule)
    assert len(schedule) == 50 * 5 * 4
    own = [offset for offset, index in schedule if index == 7]
    assert {b - a for a, b in itertools.pairwise(own)} == {200_000_000}
    assert {index for _, index in schedule} == set(range(50))


def test_percentiles_are_those_of_all_parts_together() -> None:
    summary = summarise([{1000: 900, 2000: 90}, {50_000: 9, 1_000_000: 1}])
    assert summary.count == 1000
    assert summary.p50 == pytest.approx(1, rel=0.01)
    assert summary.p90 == pytest.approx(1, rel=0.01)
    assert summary.p99 == pytest.approx(2, rel=0.01)
    assert summary.p99_9 == pytest.approx(50, rel=0.01)
    assert summary.max == 1000
    assert summarise([]).p99 == 0


async def test_the_median_is_taken_figure_by_figure(double: Double, tmp_path: Path) -> None:
    result = await run(double, tmp_path, check=False)
    others = [
        msgspec.structs.replace(result, acked=acked, errors=errors)
        for acked, errors in ((1, {"busy/none": 3}), (3, {}))
    ]
    found = median([msgspec.structs.replace(result, acked=2), *others])
    assert found["acked"] == 2
    assert found["errors"] == {"busy/none": 0}
    assert found["ack"]["count"] == result.ack.count
    assert "anomalies" not in found


async def test_the_population_is_written_and_its_tokens_are_of_live_sessions(dsn: str) -> None:
    members = await seed(dsn, "s" * 32, SHAPE, 1)
    await seed(dsn, "s" * 32, SHAPE, 2)
    assert sum(member.sends for member in members) == 6
    principal = Tokens("s" * 32).read(members[0].token)
    connection = await asyncpg.connect(dsn)
    try:
        assert await connection.fetchval("SELECT count(*) FROM users") == 24
        assert await connection.fetchval("SELECT count(*) FROM group_seq") == 12
        session = await connection.fetchrow("SELECT * FROM sessions WHERE sid = $1", principal.sid)
        joined = await connection.fetch("SELECT group_id FROM group_members WHERE user_id = $1", members[0].user_id)
        owners = await connection.fetchval("SELECT count(*) FROM group_members WHERE role = 'owner'")
    finally:
        await connection.close()
    assert session is not None
    assert session["user_id"] == principal.user_id == members[0].user_id
    assert {row["group_id"] for row in joined} == set(members[0].groups)
    assert owners == 12
