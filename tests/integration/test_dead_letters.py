"""Dead letters: put aside by a real consumer, replayed and dropped beside the running server."""

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from app.cli.dead_letters import drop_letters, list_letters, replay_letters, show_letter
from app.consumer.dead_letter_table import DeadLetterTable
from app.consumer.feature import build_replayer
from app.consumer.replay import Replayer
from app.errors import ConfigError
from app.metrics import Metrics
from app.parts import Parts
from app.roles import PARTS
from app.settings import ROOT
from app.storage.postgres import Postgres
from tests.examining import examined, its_log, wrong
from tests.running import Server, Socket, User, serving, settings_for
from tests.splitting import SETUP

QUICK = {"consumer": {"watch_s": 0.05}, "delivery": {"heads_interval_s": 0.1}}
COMMAND_S = 60.0

POISON = """
CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER poison BEFORE INSERT ON messages FOR EACH ROW WHEN (NEW.body LIKE '%poison%') EXECUTE FUNCTION poison();
"""


def table(server: Server) -> DeadLetterTable:
    return DeadLetterTable(server.app[PARTS].postgres)


def replayer(server: Server) -> Replayer:
    """As the command makes it."""
    p: Parts = server.app[PARTS]
    return build_replayer(p.postgres, p.redis, p.messages, p.groups.states, p.words, p.ids, Metrics())


@asynccontextmanager
async def poisoned(dsn: str) -> AsyncIterator[None]:
    """Messages with "poison" in them cannot be stored while the block runs."""
    admin = await asyncpg.connect(dsn)
    await admin.execute(POISON)
    try:
        yield
    finally:
        await admin.execute("DROP FUNCTION poison CASCADE")
        await admin.close()


async def put_aside(dsn: str, socket: Socket, group: str, *ids: str) -> None:
    """Sends that end as dead letters, in this order."""
    async with poisoned(dsn):
        for n, client_msg_id in enumerate(ids):
            answer = await socket.send(group, f"poison {n}", client_msg_id)
            assert (answer["code"], answer["outcome"]) == ("internal", "unknown")


def an_id() -> str:
    return str(uuid.uuid4())


async def bodies(user: User, group: str) -> list[str]:
    return [message["body"] for message in await user.history(group)]


async def metric(server: Server, name: str) -> float:
    async with server.http.get(f"{server.url}/metrics") as answer:
        for line in (await answer.text()).splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    pytest.fail(f"there is no {name}")


async def until_waiting(server: Server, count: int) -> None:
    """Until the metrics say so; a consumer apart has its own."""
    if SETUP != "one":
        return
    async with asyncio.timeout(20):
        while await metric(server, "im_dead_letters_waiting") != count:
            await asyncio.sleep(0.02)
    assert (await metric(server, "im_dead_letters_oldest_seconds") > 0) is (count > 0)


async def test_a_replayed_send_is_stored_once_and_everybody_online_gets_it(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, **QUICK)) as server:
        ann, bob = await server.users(2)
        group = await ann.group(bob)
        async with ann.socket() as a, bob.socket() as b:
            assert (await a.send(group, "before"))["seq"] == 1
            await put_aside(dsn, a, group, an_id())
            await until_waiting(server, 1)
            [letter] = await table(server).page(0, 10)
            done = await replayer(server).replay(letter.id)
            assert (done.result, done.group_id, done.seq) == ("stored", int(group), 2)
            # The command publishes nothing: the watch of the server tells members, who pull.
            assert (await b.event("gap", group_id=group))["to_seq"] == 2
            await until_waiting(server, 0)
            assert (await replayer(server).replay(letter.id)).result == "taken"
            assert (await a.send(group, "after"))["seq"] == 3
        assert await bodies(bob, group) == ["before", "poison 0", "after"]
        parts = server.app[PARTS]
        assert wrong(await examined(parts.postgres, parts.redis, broker=its_log(parts))) == {}


async def test_members_are_told_though_the_command_is_killed(
    dsn: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    async def killed(*_: object) -> None:
        raise Killed

    async with serving(settings_for(dsn, redis_url, **QUICK)) as server:
        ann, bob = await server.users(2)
        group = await ann.group(bob)
        async with ann.socket() as a, bob.socket() as b:
            await put_aside(dsn, a, group, an_id())
            # The watch has begun.
            await until_waiting(server, 1)
            [letter] = await table(server).page(0, 10)
            with monkeypatch.context() as patch:
                patch.setattr(DeadLetterTable, "remove_replayed", killed)
                with pytest.raises(Killed):
                    await replayer(server).replay(letter.id)
            assert (await b.event("gap", group_id=group))["to_seq"] == 1
        assert (await replayer(server).replay(letter.id)).result == "repeat"
        assert await bodies(bob, group) == ["poison 0"]


async def test_a_send_that_was_stored_meanwhile_is_a_repeat(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, **QUICK)) as server:
        ann = await server.user()
        group, client_msg_id = await ann.group(), an_id()
        async with ann.socket() as a:
            await put_aside(dsn, a, group, client_msg_id)
            assert (await a.send(group, "poison 0", client_msg_id))["seq"] == 1
        [letter] = await table(server).page(0, 10)
        done = await replayer(server).replay(letter.id)
        assert (done.result, done.seq) == ("repeat", 1)
        assert await table(server).page(0, 10) == []
        # Another operator, who came between the commit and the removal.
        await table(server).remove_replayed(letter.id, int(group), int(ann.id), 1)
        actions = await server.app[PARTS].postgres.fetch(
            "SELECT action FROM audit_log WHERE action LIKE 'dead%' ORDER BY audit_id"
        )
        assert [row[0] for row in actions] == ["dead_letter_claimed", "dead_letter_replayed"]
        assert await bodies(ann, group) == ["poison 0"]


async def test_a_send_that_is_tried_again_and_again_is_put_aside_once(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, **QUICK)) as server:
        ann = await server.user()
        group, client_msg_id = await ann.group(), an_id()
        async with ann.socket() as a, poisoned(dsn):
            for body, its_id in [("poison", client_msg_id)] * 3 + [
                ("poison", an_id()),
                ("other poison", client_msg_id),
            ]:
                answer = await a.send(group, body, its_id)
                assert (answer["code"], answer["outcome"]) == ("internal", "unknown")
        assert len(await table(server).page(0, 10)) == 3


async def test_a_sender_who_tries_again_after_the_replay_gets_its_answer(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, **QUICK)) as server:
        ann = await server.user()
        group, client_msg_id = await ann.group(), an_id()
        async with ann.socket() as a:
            await put_aside(dsn, a, group, client_msg_id)
            [letter] = await table(server).page(0, 10)
            done = await replayer(server).replay(letter.id)
            assert (await a.send(group, "poison 0", client_msg_id))["seq"] == done.seq == 1
        assert await bodies(ann, group) == ["poison 0"]


async def test_two_operators_store_it_once(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, **QUICK)) as server:
        ann = await server.user()
        group = await ann.group()
        async with ann.socket() as a:
            await put_aside(dsn, a, group, *(an_id() for _ in range(5)))
            letters = await table(server).page(0, 10)
            replays = asyncio.gather(*(replayer(server).replay(letter.id) for letter in letters for _ in range(3)))
            for n in range(20):
                assert "seq" in await a.send(group, f"beside {n}")
            outcomes = [done.result for done in await replays]
        assert outcomes.count("stored") == 5
        assert set(outcomes) <= {"stored", "repeat", "taken"}
        assert await table(server).page(0, 10) == []
        history = await ann.history(group)
        assert sorted(m["body"] for m in history) == sorted(
            [f"beside {n}" for n in range(20)] + [f"poison {n}" for n in range(5)]
        )
        assert [m["seq"] for m in history] == list(range(1, 26))
        parts = server.app[PARTS]
        assert wrong(await examined(parts.postgres, parts.redis, broker=its_log(parts))) == {}


async def test_what_is_refused_broken_or_poison_still_stays(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, **QUICK)) as server:
        ann, bob = await server.users(2)
        group, client_msg_id = await ann.group(bob), an_id()
        async with bob.socket() as b:
            await put_aside(dsn, b, group, client_msg_id)
        [letter] = await table(server).page(0, 10)
        replay = replayer(server).replay

        async with poisoned(dsn):
            done = await replay(letter.id)
            assert (done.result, done.why) == ("failed", "CheckViolationError")
        await bob.ok("POST", f"/groups/{group}/leave")
        done = await replay(letter.id)
        assert (done.result, done.why.partition(":")[0]) == ("refused", "not_found")
        await bob.ok("POST", f"/groups/{group}/join", {})
        assert (await bob.post(group, "other text", client_msg_id))[0] == 201
        done = await replay(letter.id)
        assert (done.result, done.why.partition(":")[0]) == ("refused", "conflict")

        await server.app[PARTS].postgres.execute(
            "INSERT INTO dead_letters (broker, partition, position, envelope, reason) VALUES ('memory', 1, '7', 'x', 'ValueError')"
        )
        letters = await table(server).page(0, 10)
        assert (await replay(letters[1].id)).result == "broken"
        assert len(await table(server).page(0, 10)) == 2
        assert await bodies(ann, group) == ["other text"]


@pytest.mark.may_block
async def test_the_commands(dsn: str, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_for(dsn, redis_url, **QUICK)
    async with serving(settings) as server:
        ann, bob = await server.users(2)
        group = await ann.group(bob)
        async with ann.socket() as a, bob.socket() as b:
            await put_aside(dsn, a, group, an_id(), an_id(), an_id())
            await server.app[PARTS].postgres.execute(
                "INSERT INTO dead_letters (broker, partition, position, envelope, reason) VALUES ('memory', 1, '7', 'xyz', 'ValueError')"
            )
            first, second, third, broken = (letter.id for letter in await table(server).page(0, 10))

            async def said(work: Awaitable[int], code: int = 0) -> str:
                assert await work == code
                out, errors = capsys.readouterr()
                return out + errors

            listed = json.loads(await said(list_letters(settings, limit=10, in_json=True)))
            assert [letter["id"] for letter in listed] == [first, second, third, broken]
            assert [letter.get("group_id") for letter in listed] == [group] * 3 + [None]
            assert listed[0]["sender_id"] == ann.id
            shown = await said(list_letters(settings, limit=2, in_json=False))
            assert "CheckViolationError" in shown
            assert "and 2 more" in shown
            assert "poison" not in str(listed) + shown

            assert "poison" not in await said(show_letter(settings, first, text=False, in_json=False))
            assert "poison 0" in await said(show_letter(settings, first, text=True, in_json=False))
            assert "78797a" in await said(show_letter(settings, broken, text=True, in_json=False))
            assert "No such dead letter" in await said(show_letter(settings, 99999, text=False, in_json=False), 1)

            replayed = await said(replay_letters(settings, [first], everything=False))
            assert f"{first}: stored as message 1 of group {group}" in replayed
            assert (await b.event("gap", group_id=group))["to_seq"] == 1

            questions: list[str] = []

            def refuse(question: str) -> bool:
                questions.append(question)
                return False

            no = drop_letters(settings, [second], everything=False, confirm=refuse)
            assert "Nothing was dropped" in await said(no, 1)
            assert str(second) in questions[0]
            yes = drop_letters(settings, [second, 99999], everything=False, confirm=lambda _: True)
            assert f"Dropped: {second}." in await said(yes, 1)

            replayed = await said(replay_letters(settings, [], everything=True), 1)
            assert f"{third}: stored as message 2" in replayed
            assert f"{broken}: kept, it can never be stored" in replayed
            with pytest.raises(ConfigError, match="say --all"):
                await replay_letters(settings, [], everything=False)
            await said(drop_letters(settings, [], everything=True, confirm=lambda _: True))
            assert "There are no dead letters" in await said(list_letters(settings, limit=10, in_json=False))
        assert await bodies(bob, group) == ["poison 0", "poison 2"]
        actions = await server.app[PARTS].postgres.fetch(
            "SELECT action, count(*) FROM audit_log WHERE action LIKE 'dead%' GROUP BY action ORDER BY action"
        )
        assert [tuple(row) for row in actions] == [
            ("dead_letter_claimed", 2),
            ("dead_letter_dropped", 2),
            ("dead_letter_replayed", 2),
        ]


async def test_nobody_is_asked_where_nobody_is(dsn: str, redis_url: str, postgres: Postgres) -> None:
    await postgres.execute(
        "INSERT INTO dead_letters (broker, partition, position, envelope, reason) VALUES ('memory', 1, '7', 'xyz', 'ValueError')"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "run.py"), "deadletters", "drop", "--all"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "IM_POSTGRES__DSN": dsn, "IM_REDIS__URL": redis_url},
        cwd=ROOT,
    )
    async with asyncio.timeout(COMMAND_S):
        out, errors = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert errors.decode() == "magpie: Nobody can be asked here; say --yes to drop them.\n"
    assert await postgres.fetchval("SELECT count(*) FROM dead_letters") == 1
