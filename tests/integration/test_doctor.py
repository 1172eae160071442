"""The doctor on damaged copies of a history: it names each damage, mends those it says it can, and is content afterwards."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from app.brokers.base import Broker
from app.brokers.kafka import KafkaBroker
from app.brokers.memory import MemoryBroker
from app.cli.doctor import examine, exit_code
from app.doctor.feature import CHECKS, build_doctor
from app.errors import ConfigError
from app.ids import EPOCH_MS
from app.lifecycle import Readiness, Supervisor
from app.roles import PARTS
from app.settings import Settings, load
from app.storage.embedded import EmbeddedServers
from app.storage.postgres import Postgres
from app.storage.redis import Redis, connect
from tests.contract.logs import PARTITIONS, kafka_brokers, kafka_options
from tests.damages import DAMAGES, HOT, SEQ, Damage
from tests.examining import Sample, examined, its_log, made_sample, wrong
from tests.running import serving, settings_for
from tests.services import database_like


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def original(servers: EmbeddedServers) -> AsyncIterator[Sample]:
    """Made once; tests work on copies."""
    async with database_like(servers.dsn) as dsn, made_sample(dsn, servers.redis_url) as sample:
        yield sample


@pytest.fixture
async def sample(original: Sample, redis: Redis) -> AsyncIterator[Sample]:
    """A copy of the data of this test alone."""
    for key, value in original.keys.items():
        await redis.restore(key, 0, value)
    async with database_like(original.dsn) as dsn:
        yield Sample(dsn, *[getattr(original, name) for name in list(original.__dict__)[1:]])


@pytest.fixture
async def stores(sample: Sample, config: Settings) -> AsyncIterator[Postgres]:
    o = config.postgres
    pool = Postgres(
        sample.dsn,
        pool_min=1,
        pool_max=4,
        connect_timeout_s=5,
        command_timeout_s=20,
        acquire_timeout_s=o.acquire_timeout_s,
    )
    await pool.start()
    yield pool
    await pool.stop()


async def inflict(harm: Damage, sample: Sample, redis: Redis) -> Mapping[str, int]:
    """`{at}` in SQL is the beginning of a condition on the number of a message."""
    ids = {name: getattr(sample, name) for name in ("group", "other", "ann", "bob", "cid")}
    connection = await asyncpg.connect(sample.dsn)
    if harm.sql:
        await connection.execute(harm.sql.format(**ids, at=f"group_id = {sample.group} AND seq"))
    await connection.close()
    for command in harm.redis:
        await redis.execute_command(*command.format(**ids).split())
    return ids


async def test_an_unharmed_history_is_fine(sample: Sample, stores: Postgres, redis: Redis) -> None:
    results = await examined(stores, redis)
    assert wrong(results) == {}
    assert list(results) == list(CHECKS)
    looked_at = {name: result.looked_at for name, result in results.items()}
    assert looked_at | {"numbers": 9, "hot_caches": 9, "members": 5, "unread": 5, "search_index": 9} == looked_at
    assert looked_at["counters"] == looked_at["owners"] == 2


@pytest.mark.parametrize("harm", DAMAGES, ids=lambda harm: harm.id)
async def test_damage_is_named_and_mended(harm: Damage, sample: Sample, stores: Postgres, redis: Redis) -> None:
    ids = await inflict(harm, sample, redis)
    found = wrong(await examined(stores, redis))
    assert any(harm.says.format(**ids) in example for example in found[harm.check]), found
    assert found.keys() <= {harm.check} | harm.also
    assert "text " not in str(found), "message text is nobody's business here"

    mended = await examined(stores, redis, repair=True)
    assert wrong(mended).keys() == harm.left
    if harm.check not in harm.left:
        assert mended[harm.check].mended == mended[harm.check].wrong > 0
    assert wrong(await examined(stores, redis)).keys() == harm.left


async def test_what_is_left_of_a_group_in_the_index_is_found(sample: Sample, stores: Postgres, redis: Redis) -> None:
    await stores.execute(
        "INSERT INTO search_block SELECT 42, 1, 9, first_id, last_id, words, signature FROM search_block LIMIT 1"
    )
    assert wrong(await examined(stores, redis)) == {
        "unknown_groups": ["group 42: only in search_block"],
        "search_index": ["group 42: indexed up to 0, but its blocks end at 9"],
    }
    await examined(stores, redis, repair=True)
    assert wrong(await examined(stores, redis)) == {}


async def test_mending_loses_no_message_and_the_group_goes_on(
    sample: Sample, stores: Postgres, redis: Redis, redis_url: str
) -> None:
    history = await stores.fetch("SELECT * FROM messages ORDER BY group_id, seq")
    for harm in DAMAGES:
        if harm.id in ("last_seq back", "counter no number", "hot: no cache", "not in the index"):
            await inflict(harm, sample, redis)
    assert wrong(await examined(stores, redis, repair=True)) == {}
    assert await stores.fetch("SELECT * FROM messages ORDER BY group_id, seq") == history
    async with serving(settings_for(sample.dsn, redis_url, search={"index_interval_s": 0.05})) as server:
        parts = server.app[PARTS]
        dan = await server.user()
        await dan.ok("POST", f"/groups/{sample.group}/join", {})
        status, message = await dan.post(str(sample.group), "goes on")
        assert (status, message["seq"]) == (201, 7)
        assert [m["seq"] for m in await dan.history(str(sample.group))] == list(range(1, 8))
        async with asyncio.timeout(20):
            while await parts.postgres.fetchval("SELECT sum(indexed_seq) FROM search_progress") < 10:
                await asyncio.sleep(0.02)
        found = await dan.ok("GET", "/search/messages", q="text 3")
        assert [hit["message"]["seq"] for hit in found["items"]] == [4], "what the index had lost is found again"
        assert wrong(await examined(parts.postgres, parts.redis, broker=its_log(parts))) == {}


async def test_a_repeat_from_long_ago_leaves_no_hole_in_the_cache(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        parts = server.app[PARTS]
        ann = await server.user()
        group = await ann.group()
        ids = [str(uuid.uuid4()) for _ in range(9)]

        async def cached(*seqs: int) -> list[int]:
            """What is, after these were sent or sent again."""
            for seq in seqs:
                _, message = await ann.post(group, f"text {seq}", ids[seq])
                assert message["seq"] == seq
            pairs = (await parts.messages.hot.contents([int(group)]))[int(group)]
            return [int(score) for score, _ in pairs or ()]

        hot = HOT.format(group=group)
        assert await cached(1, 2, 3, 4) == [1, 2, 3, 4]
        assert await cached(2) == [1, 2, 3, 4]
        await parts.redis.delete(hot)
        assert await cached(5, 6) == [5, 6]
        assert await cached(2) == [5, 6]
        await parts.redis.delete(hot)
        assert await cached(2, 3) == [2, 3]
        assert await cached(7, 8) == [7, 8]
        assert wrong(await examined(parts.postgres, parts.redis, broker=its_log(parts))) == {}


async def test_mending_beside_a_batch_lets_its_proposal_be(sample: Sample, stores: Postgres, redis: Redis) -> None:
    """The counter moves between the look and the mending: it is not set back under the batch."""
    key = SEQ.format(group=sample.group)
    await redis.set(key, 4)
    async with stores.transaction() as batch:
        await batch.execute("SELECT FROM group_seq WHERE group_id = $1 FOR NO KEY UPDATE", sample.group)
        mending = asyncio.ensure_future(examined(stores, redis, repair=True, only=["counters"], settle_s=0.1))
        async with asyncio.timeout(10):
            while not await stores.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.02)
        await redis.incrby(key, 3)
        await batch.execute("UPDATE group_seq SET last_seq = 7 WHERE group_id = $1", sample.group)
    assert wrong(await mending) == {}
    assert await redis.get(key) == b"7"


@pytest.mark.may_block
async def test_the_table_says_what_is_wrong_and_what_to_do(
    sample: Sample, redis: Redis, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(sample.dsn, redis_url)
    options: dict[str, Any] = {"as_json": False, "only": (), "settle_s": 0.1, "statement_s": 20.0, "unread_max": 100}
    with pytest.raises(ConfigError, match="no check 'onwers'; there are group_rows, "):
        await examine(settings, repair=False, **options | {"only": ("onwers",)})
    assert await examine(settings, repair=False, **options) == 0
    assert "Nothing is wrong." in capsys.readouterr().out
    for harm in DAMAGES:
        if harm.id in ("hole", "counter back"):
            await inflict(harm, sample, redis)
    assert await examine(settings, repair=False, **options) == 1
    said = " ".join(capsys.readouterr().out.split())
    for part in (
        "1 missing, 3 to 3",
        "Never renumber",
        "Redis has 4, PostgreSQL 6",
        "yes: set the counter",
        "--repair",
    ):
        assert part in said, part
    assert await examine(settings, repair=True, **options) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "1 mended: set the counter" in said
    assert "1 wrong." in said, "the hole"
    assert await examine(settings, repair=False, **options | {"as_json": True, "only": ("numbers", "counters")}) == 1
    answer = json.loads(capsys.readouterr().out)
    assert [(check["check"], check["wrong"]) for check in answer["checks"]] == [("numbers", 1), ("counters", 0)]


async def test_a_store_that_is_away_is_not_taken_for_fine(sample: Sample, stores: Postgres, redis: Redis) -> None:
    nobody = connect("redis://127.0.0.1:1", pool_max=1, connect_timeout_s=1, command_timeout_s=1)
    broker = MemoryBroker(16, 10)
    bounds: dict[str, Any] = {"repair": False, "settle_s": 0.1, "statement_s": 20.0, "lock_s": 5.0, "unread_max": 10}
    results = await build_doctor(
        stores, nobody, broker, load().messages, only=["counters", "numbers"], **bounds
    ).examine()
    await nobody.aclose()
    assert [bool(result.failure) for result in results] == [False, True]
    assert exit_code(results) == 2


class StuckBroker(MemoryBroker):
    """A log that outlives processes, and that nobody reads."""

    durable = True


async def test_a_log_that_nobody_reads_is_named(stores: Postgres, redis: Redis, config: Settings) -> None:
    broker = StuckBroker(config.broker.partitions, 10)
    await broker.append(5, [b"x", b"y"])
    found = await examined(stores, redis, broker=broker, only=["backlog"])
    assert wrong(found) == {"backlog": ["partition 5: 2 records wait, and none was decided about meanwhile"]}
    memory = (await examined(stores, redis, only=["backlog"]))["backlog"]
    assert (memory.left, "memory of the server's process" in memory.note) == (0, True)


async def test_settings_without_the_log_of_the_consumers_are_not_taken_for_fine(
    stores: Postgres, redis: Redis, config: Settings
) -> None:
    async def take(broker: str, at: str) -> None:
        await stores.execute(
            "INSERT INTO partition_owner (broker, partition, epoch, owner, taken_at) VALUES ($1, 20, 1, 'c1', now() + $2::text::interval)",
            broker,
            at,
        )

    async def found(broker: Broker | None = None) -> list[str]:
        return (await examined(stores, redis, broker=broker, only=["partitions"]))["partitions"].examples

    await take("redis_streams", "-1 day")
    assert await found() == [], "it was used before, and is not any more"
    await take("kafka", "1 minute")
    assert await found() == ["memory in the settings, consumers use kafka"]
    assert await found(StuckBroker(config.broker.partitions, 10)) == [], "only a log that nobody else sees"


@pytest.mark.xdist_group("kafka")
async def test_a_log_in_kafka_that_nobody_reads_is_named(stores: Postgres, redis: Redis) -> None:
    options = await kafka_options()
    async with kafka_brokers(options) as connect:
        await (await connect()).append(2, [b"x", b"y", b"z"])
        broker = KafkaBroker(
            options, Supervisor(lambda _: None), Readiness(), partitions=PARTITIONS, append_timeout_s=5
        )
        found = await examined(stores, redis, broker=broker, only=["backlog"])
        assert wrong(found) == {"backlog": ["partition 2: 3 records wait, and none was decided about meanwhile"]}


async def test_a_history_of_many_groups_is_looked_at_in_chunks(
    stores: Postgres, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stores.execute(
        """WITH g AS (INSERT INTO groups (group_id, name, visibility) SELECT n, 'g', 'open' FROM generate_series(1, 60) AS n),
                s AS (INSERT INTO group_seq (group_id, last_seq) SELECT n, 100 FROM generate_series(1, 60) AS n),
                m AS (INSERT INTO messages (group_id, seq, message_id, sender_id, client_msg_id, kind, body, content_hash, ts)
                      SELECT n, seq, (n * 100 + seq)::bigint << 22, 7, gen_random_uuid(), 'text', 'x', ''::bytea, n * 100 + seq + $1::bigint
                      FROM generate_series(1, 60) AS n, generate_series(1, 100) AS seq WHERE (n, seq) <> (33, 50)
                      UNION ALL
                      SELECT n, 1, (n * 100 + 1)::bigint << 22, 7, gen_random_uuid(), 'text', 'x', ''::bytea, n * 100 + 1 + $1::bigint
                      FROM generate_series(1001, 1040) AS n)
           SELECT 1""",
        EPOCH_MS,
    )
    monkeypatch.setattr("app.doctor.examine.GROUPS_AT_ONCE", 7)
    monkeypatch.setattr("app.doctor.examine.MESSAGES_AT_ONCE", 350)
    results = await examined(stores, redis, only=["numbers", "unknown_groups"])
    assert results["numbers"].looked_at == 9 + 60 * 100 - 1 + 40
    assert results["numbers"].examples == ["group 33: 1 missing, 50 to 50"]
    assert (results["unknown_groups"].looked_at, results["unknown_groups"].wrong) == (102, 40)
