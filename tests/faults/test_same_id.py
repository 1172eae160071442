"""One send, tried several times at once over several connections: one message, and every try gets the same answer."""

import asyncio
import uuid
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.faults.conftest import Trial
from tests.running import Socket, User, serving, settings_for

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

DEVICES = 3


async def over_socket(socket: Socket, group: str, body: str, key: str) -> tuple[Any, ...]:
    answer = await socket.send(group, body, key)
    assert answer["type"] == "ok", answer
    return answer["message_id"], answer["seq"], answer["ts"]


async def over_http(user: User, group: str, body: str, key: str) -> tuple[Any, ...]:
    status, message = await user.post(group, body, key)
    assert status in (200, 201), message
    return message["message_id"], message["seq"], message["ts"]


async def test_the_same_id_sent_several_times_at_once_is_one_message(dsn: str, redis_url: str, trial: Trial) -> None:
    chance = trial.chance
    rounds = trial.count(full=300, short=30)
    async with serving(settings_for(dsn, redis_url)) as server, AsyncExitStack() as stack:
        ann, bob = await server.users(2)
        group = await ann.group(bob)
        sockets = [await stack.enter_async_context(ann.socket()) for _ in range(DEVICES)]
        acked = []
        for number in range(rounds):
            body, key = f"{number}", str(uuid.UUID(int=chance.getrandbits(128), version=4))
            # A test socket has one reader, so one try at a time; the others go over HTTP.
            tries = chance.randint(2, 5)
            ways = [over_socket(socket, group, body, key) for socket in chance.sample(sockets, min(tries, DEVICES))]
            ways += [over_http(ann, group, body, key) for _ in range(tries - len(ways))]
            answers = set(await asyncio.gather(*ways))
            assert len(answers) == 1, f"seed {trial.seed}, round {number}: {answers}"
            acked.append((answers.pop()[1], body))
        assert acked == [(seq, str(seq - 1)) for seq in range(1, rounds + 1)]
        history: list[tuple[int, str]] = []
        while page := await bob.history(group, after_seq=len(history)):
            history += [(message["seq"], message["body"]) for message in page]
        assert history == acked


async def test_of_different_bodies_under_one_id_one_is_stored_and_the_others_conflict(
    dsn: str, redis_url: str, trial: Trial
) -> None:
    async with serving(settings_for(dsn, redis_url)) as server:
        ann = await server.user()
        group = await ann.group()
        for number in range(trial.count(full=100, short=10)):
            key = str(uuid.uuid4())
            answers = await asyncio.gather(*(ann.post(group, f"{number} {body}", key) for body in "abc"))
            assert sorted(status for status, _ in answers) == [201, 409, 409], answers
            (stored,) = [body for status, body in answers if status == 201]
            assert (await ann.history(group))[-1]["body"] == stored["body"]
