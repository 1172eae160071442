"""Everything at once: lost packets, cut connections, refusals and timeouts, while somebody sends and reads."""

import asyncio
import random
from dataclasses import replace

import pytest

from app.client.client import Client
from app.client.events import MessageReceived
from app.protocol import frames
from tests.scripted_server import ScriptedServer
from tests.unit.test_client_session import QUICK, Recorder

OTHERS, OWN = 150, 40
TROUBLE = ["ok", "ok", "busy", "timeout", "cut_before", "cut_after"]


@pytest.mark.parametrize("seed", range(6))
async def test_every_message_is_read_once_in_order_and_stored_once(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - a test that can be repeated
    recorder = Recorder()
    options = replace(
        QUICK, start="beginning", max_events=draw.choice([8, 2000]), max_aside=4, pull_page=draw.randint(3, 50)
    )
    async with ScriptedServer() as server:
        server.resume_limit = draw.randint(0, 20)
        server.plan.extend(draw.choice(TROUBLE) for _ in range(2 * OWN))
        async with Client(server.url, "good", options=options, hooks=recorder, seed=seed) as client:
            read: list[int] = []
            async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(read_until(client, read, OTHERS + OWN))
                tasks.create_task(send_all(client))
                await disturb(server, draw)
                await reading
            assert read == list(range(1, OTHERS + OWN + 1))
        bodies = [item.body for item in server.stored["7"] if item.sender_id == "5"]
        assert bodies == [f"own {n}" for n in range(OWN)]
        assert [word for word in recorder.words if word.startswith("ok")] == [
            f"ok {item.body} {item.seq}" for item in server.stored["7"] if item.sender_id == "5"
        ]
        assert [body for body, _ in recorder.seen] == [item.body for item in server.stored["7"]]


async def read_until(client: Client, read: list[int], count: int) -> None:
    async for event in client.events():
        if isinstance(event, MessageReceived):
            read.append(event.message.seq)
            if len(read) == count:
                return


async def send_all(client: Client) -> None:
    for n in range(OWN):
        await client.send("7", f"own {n}")


async def disturb(server: ScriptedServer, draw: random.Random) -> None:
    """Others write; of what is pushed some is lost, some comes twice, and sometimes the connection ends."""
    for n in range(OTHERS):
        message = server.store(f"other {n}")
        chance = draw.random()
        if chance < 0.5:
            await server.push(message)
        elif chance < 0.6:
            await server.push(message)
            await server.push(message)
        elif chance < 0.65:
            await server.emit(frames.gap(7, message.seq, draw.choice([None, message.seq]), 5))
        elif chance < 0.69:
            await server.cut_all()
        elif chance < 0.72:
            await server.close_all(draw.choice([4000, 4001, 4002]))
        await asyncio.sleep(draw.choice([0, 0, 0.001]))
    while sum(item.sender_id == "5" for item in server.stored["7"]) < OWN:
        await asyncio.sleep(0.01)
    # The heads that a server repeats bring the last of them.
    for _ in range(100):
        await server.emit(frames.gap(7, 1, len(server.stored["7"]), 5))
        await asyncio.sleep(0.02)
        if server.syncs and server.syncs[-1]["7"] >= len(server.stored["7"]) - 50:
            return
