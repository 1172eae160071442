"""A store goes away and comes back while people chat: the process says so, holds or refuses, and loses nothing."""

import asyncio
import uuid

import asyncpg

from app.roles import PARTS
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.redis import Redis
from tests.running import Server, serving, settings_for
from tests.splitting import SETUP

PROBES = {"probe_interval_s": 0.05, "probe_timeout_s": 0.5}


async def readiness(server: Server) -> dict[str, str]:
    """What any process misses."""
    missing: dict[str, str] = {}
    for url in server.urls:
        async with server.http.get(f"{url}/readyz") as response:
            reasons = (await response.json())["reasons"]
            assert response.status == (503 if reasons else 200)
            missing |= reasons
    return missing


async def until_ready(server: Server, *, ready: bool) -> None:
    async with asyncio.timeout(20):
        while bool(await readiness(server)) is ready:
            await asyncio.sleep(0.05)


async def test_valkey_restarts_empty_and_what_was_sent_meanwhile_is_stored(
    dsn: str, breakable_valkey: ValkeyProcess
) -> None:
    settings = settings_for(
        dsn, breakable_valkey.url, metrics=PROBES, redis={"command_timeout_s": 0.5, "connect_timeout_s": 0.5}
    )
    async with serving(settings) as server:
        ann, bob = await server.users(2)
        group = await ann.group(bob)
        async with ann.socket() as a, bob.socket() as b:
            assert (await a.send(group, "before"))["seq"] == 1
            await breakable_valkey.stop()
            await until_ready(server, ready=False)
            held = asyncio.ensure_future(a.send(group, "meanwhile"))
            await asyncio.sleep(0.2)
            log_is_away = SETUP == "redis_streams"
            assert held.done() == log_is_away
            await breakable_valkey.start()
            if log_is_away:
                assert ((refused := await held)["code"], refused["outcome"]) == ("busy", "none")
                await until_ready(server, ready=True)
                held = asyncio.ensure_future(a.send(group, "meanwhile"))
            assert (await held)["seq"] == 2
            await until_ready(server, ready=True)
            assert (await a.send(group, "after"))["seq"] == 3
            await b.until(lambda f: f["type"] == "messages" and f["items"][-1]["seq"] == 3)
        assert [m["body"] for m in await bob.history(group)] == ["before", "meanwhile", "after"]


async def test_who_lost_its_partitions_to_another_takes_them_again(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        ann, bob = await server.users(2)
        group = await ann.group(bob)
        async with ann.socket() as a:
            assert (await a.send(group, "before"))["seq"] == 1
            other = await asyncpg.connect(dsn)
            await other.execute("UPDATE partition_owner SET epoch = epoch + 1")
            await other.close()
            assert (await a.send(group, "after"))["seq"] == 2
        assert [m["body"] for m in await bob.history(group)] == ["before", "after"]
        assert await readiness(server) == {}
        # The consumer is the last one where the roles are apart.
        metrics = server.apps[-1][PARTS].metrics.registry
        assert metrics.get_sample_value("im_batches_dropped_total") == 1


LOST_AT_COMMIT = """
CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_terminate_backend(pg_backend_pid());
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER lose AFTER INSERT ON groups DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.name = 'lost') EXECUTE FUNCTION lose();
"""


async def test_a_change_whose_commit_got_no_answer_is_said_to_be_unknown(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        ann = await server.user()
        admin = await asyncpg.connect(dsn)
        await admin.execute(LOST_AT_COMMIT)
        await admin.close()
        status, body = await ann.call("POST", "/groups", {"name": "lost", "visibility": "open"})
        assert (status, body["error"]["code"], body["error"]["outcome"]) == (503, "busy", "unknown")
        await ann.group()


LOST_AT_UPDATE = """
CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_terminate_backend(pg_backend_pid());
    RETURN NEW;
END $$;
CREATE TRIGGER lose BEFORE UPDATE ON users FOR EACH ROW WHEN (NEW.display_name = 'lost') EXECUTE FUNCTION lose();
"""


async def test_a_single_statement_that_got_no_answer_is_said_to_be_unknown(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        ann = await server.user()
        admin = await asyncpg.connect(dsn)
        await admin.execute(LOST_AT_UPDATE)
        await admin.close()
        status, body = await ann.call("PATCH", "/me", {"display_name": "lost"})
        assert (status, body["error"]["outcome"]) == (503, "unknown")


DISK_FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'disk_full';
END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION full_disk();
"""


async def test_messages_wait_while_the_disk_of_the_database_is_full(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        ann = await server.user()
        group = await ann.group()
        admin = await asyncpg.connect(dsn)
        await admin.execute(DISK_FULL)
        async with ann.socket() as a:
            held = asyncio.ensure_future(a.send(group, "waits"))
            await until_ready(server, ready=False)
            assert not held.done()
            await admin.execute("DROP TRIGGER full_disk ON messages")
            assert (await held)["seq"] == 1
        assert await admin.fetchval("SELECT count(*) FROM dead_letters") == 0
        await admin.close()


REFUSED = """
ALTER TABLE dead_letters RENAME TO kept;
CREATE SEQUENCE tries;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('tries');
    RAISE EXCEPTION 'not now';
END $$;
CREATE TRIGGER refuse BEFORE UPDATE OF last_read_seq ON group_members FOR EACH ROW EXECUTE FUNCTION refuse();
"""


async def test_what_the_database_refuses_to_a_background_task_ends_nothing(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, messages={"read_flush_s": 0.05})) as server:
        ann, bob = await server.users(2)
        group = await ann.group(bob)
        admin = await asyncpg.connect(dsn)
        async with ann.socket() as a, bob.socket() as b:
            await a.send(group, "hello")
            await admin.execute(REFUSED)
            assert (await b.request("message.read", group_id=group, seq=1))["type"] == "ok"
            async with asyncio.timeout(20):
                while await admin.fetchval("SELECT last_value FROM tries") < 3:
                    await asyncio.sleep(0.05)
            await admin.execute("DROP TRIGGER refuse ON group_members; ALTER TABLE kept RENAME TO dead_letters")
            await a.until(lambda f: f["type"] == "read" and f["seq"] == 1)
            assert (await a.send(group, "after"))["seq"] == 2
        await admin.close()


async def test_what_must_be_mended_in_the_database_is_waited_for(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, metrics=PROBES)) as server:
        ann = await server.user()
        group = await ann.group()
        admin = await asyncpg.connect(dsn)
        async with ann.socket() as a:
            assert (await a.send(group, "before"))["seq"] == 1
            await admin.execute("ALTER TABLE messages RENAME TO mislaid")
            held = asyncio.ensure_future(a.send(group, "meanwhile"))
            async with asyncio.timeout(20):
                while "UndefinedTableError" not in (await readiness(server)).get("store", ""):
                    await asyncio.sleep(0.05)
            await admin.execute("ALTER TABLE mislaid RENAME TO messages")
            assert (await held)["seq"] == 2
            await until_ready(server, ready=True)
        assert await admin.fetchval("SELECT count(*) FROM dead_letters") == 0
        await admin.close()


async def test_a_repeat_is_answered_though_the_head_of_its_group_is_lost(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        ann = await server.user()
        group, other, client_msg_id = await ann.group(), await ann.group(), str(uuid.uuid4())
        admin = await asyncpg.connect(dsn)
        async with ann.socket() as a:
            assert (await a.send(group, "stored", client_msg_id))["seq"] == 1
            await admin.execute("DELETE FROM group_seq WHERE group_id = $1", int(group))
            assert (await a.send(group, "stored", client_msg_id))["seq"] == 1
            assert (await a.send(other, "goes on"))["seq"] == 1
        await admin.close()


async def test_a_broken_key_stops_nobody_and_is_put_right(dsn: str, redis_url: str, redis: Redis) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        ann = await server.user()
        group, other = await ann.group(), await ann.group()
        counter, cache = f"Group:{{{group}}}:Seq", f"Group:{{{group}}}:Hot"
        async with ann.socket() as a:
            assert (await a.send(group, "first"))["seq"] == 1
            # Its ack may have passed its cache: one of the two meets the string.
            await redis.set(cache, "no set")
            await redis.set(counter, "no number")
            assert (await a.send(group, "second"))["seq"] == 2
            await redis.unlink(counter)
            await redis.rpush(counter, "no string")
            assert (await a.send(group, "third"))["seq"] == 3
            assert (await a.send(group, "fourth"))["seq"] == 4
            assert (await a.send(other, "elsewhere"))["seq"] == 1
        async with asyncio.timeout(20):
            while await redis.get(counter) != b"4" or await redis.zcard(cache) < 2:
                await asyncio.sleep(0.05)
        assert await readiness(server) == {}
