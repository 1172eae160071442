"""The doctor beside people at work finds nothing; and as a command, beside a server and without one."""

import asyncio
import json
import os
import sys
from typing import Any

import asyncpg
import pytest

from app.doctor.examine import Result
from app.parts import Parts
from app.roles import PARTS
from app.settings import ROOT
from tests.examining import examined, its_log, wrong
from tests.faults.process import ServerProcess, a_server
from tests.running import User, serving, settings_for

ROUNDS = 4
SETTLE_S = 5.0
COMMAND_S = 60.0


async def write(user: User, group: str, stop: asyncio.Event) -> int:
    """Send over one socket without a pause, several at once, and read what the others write."""
    sent = seq = 0
    async with user.socket() as socket:
        while not stop.is_set():
            for n in range(8):
                await socket.ws.send_json(
                    {
                        "id": 10_000 + n,
                        "type": "message.send",
                        "group_id": group,
                        "client_msg_id": os.urandom(16).hex(),
                        "kind": "text",
                        "body": "x",
                    }
                )
            for _ in range(8):
                answer = await socket.until(lambda frame: frame.get("id", 0) >= 10_000)
                assert answer["type"] == "ok", answer
                sent, seq = sent + 1, answer["seq"]
            await socket.request("message.read", group_id=group, seq=seq)
    return sent


async def come_and_go(owner: User, guest: User, group: str, stop: asyncio.Event) -> int:
    """Groups are made and disbanded, people join, are banned and let in again."""
    changes = 0
    while not stop.is_set():
        await guest.ok("POST", f"/groups/{group}/join", {})
        await guest.post(group, "hello")
        await owner.ok("PUT", f"/groups/{group}/bans/{guest.id}")
        await owner.ok("DELETE", f"/groups/{group}/bans/{guest.id}")
        passing = await guest.group(owner)
        await owner.post(passing, "bye")
        await guest.ok("DELETE", f"/groups/{passing}")
        changes += 1
    return changes


async def test_a_busy_server_gives_no_false_alarm(dsn: str, redis_url: str) -> None:
    async with serving(settings_for(dsn, redis_url, search={"index_interval_s": 0.05})) as server:
        parts = server.app[PARTS]
        ann, bob, cid, dan = await server.users(4)
        first, second, third = await ann.group(bob, cid), await bob.group(cid), await cid.group()

        async def beside(*, repair: bool = False) -> dict[str, Result]:
            return await examined(parts.postgres, parts.redis, broker=its_log(parts), settle_s=SETTLE_S, repair=repair)

        stop = asyncio.Event()
        work = [
            *(write(user, group, stop) for user, group in ((ann, first), (bob, first), (bob, second), (cid, second))),
            come_and_go(cid, dan, third, stop),
        ]
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(task) for task in work]
            for _ in range(ROUNDS):
                assert wrong(await beside()) == {}
            # Mending beside the work harms nothing either.
            assert wrong(await beside(repair=True)) == {}
            stop.set()
        assert all(task.result() > 0 for task in working)
        assert wrong(await beside()) == {}


async def test_a_log_in_redis_is_looked_at_beside_its_consumers(dsn: str, redis_url: str) -> None:
    settings = settings_for(dsn, redis_url, broker={"kind": "redis_streams"})

    def another_process() -> Parts:
        return Parts(settings, lambda _: None)

    async with serving(settings) as server:
        parts = server.app[PARTS]
        ann = await server.user()
        group = await ann.group()
        assert (await ann.post(group, "x"))[0] == 201
        broker = another_process().broker
        assert wrong(await examined(parts.postgres, parts.redis, broker=broker, settle_s=SETTLE_S)) == {}
    broker = another_process().broker
    await broker.start()
    await broker.append(3, [b"x"])
    await broker.stop()
    last = another_process()
    await last.postgres.start()
    found = await examined(last.postgres, last.redis, broker=last.broker)
    assert wrong(found) == {"backlog": ["partition 3: 1 records wait, and none was decided about meanwhile"]}
    await last.redis.aclose()
    await last.postgres.stop()


async def run(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """A command to its end: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "run.py"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **variables},
        cwd=ROOT,
    )
    async with asyncio.timeout(COMMAND_S):
        out, errors = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in errors, errors.decode()
    return process.returncode, out.decode(), errors.decode()


async def doctor(server: ServerProcess, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The command on the data folder of `server`, as JSON by check."""
    code, out, errors = await run(
        "doctor", "--json", "--settle", "0.2", *arguments, IM_DATA_DIR=str(server.folder / "data")
    )
    assert out, errors
    answer = json.loads(out)
    assert answer["ok"] is (code == 0)
    return code, {check["check"]: check for check in answer["checks"]}


@pytest.mark.timeout(150)
async def test_the_command_works_beside_a_server_and_without_one() -> None:
    async with a_server() as server:
        code, _, errors = await run("doctor", IM_DATA_DIR=str(server.folder / "data"))
        assert (code, "There is no database in the data folder" in errors) == (2, True)

        await server.start()
        connection = await asyncpg.connect(server.dsn)
        await connection.execute(
            """INSERT INTO groups (group_id, name, visibility) VALUES (7, 'g', 'open');
               INSERT INTO users (user_id, username, display_name, password_hash) VALUES (5, 'ann', 'Ann', '');
               INSERT INTO group_members (group_id, user_id, role, joined_seq) VALUES (7, 5, 'owner', 0)"""
        )
        async with server.valkey() as valkey:
            await valkey.set("Group:{7}:Seq", 3)
            code, checks = await doctor(server)
            assert (code, checks["group_rows"]["examples"]) == (1, ["group 7: no row in group_seq"])
            assert checks["group_rows"]["mendable"]
            code, checks = await doctor(server, "--repair")
            assert (code, checks["group_rows"]["mended"], checks["counters"]["mended"]) == (0, 1, 1)
            assert await valkey.get("Group:{7}:Seq") is None

        await connection.execute("DELETE FROM group_members")
        await connection.close()
        await server.stop()
        # Nobody runs the stores now, so the command does.
        code, out, _ = await run("doctor", "--only", "owners", IM_DATA_DIR=str(server.folder / "data"))
        assert code == 1
        assert "group 7: 0 owners, 0 members" in out
        assert "Decide who shall own it" in out
