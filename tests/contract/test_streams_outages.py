"""Redis is away, frozen or started again while the log in its streams is in use."""

import asyncio
import itertools
import signal
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from app.errors import AppError, Busy, Internal
from app.metrics import Metrics
from app.modules.messages.models import Draft, from_envelope
from app.modules.messages.producer import MessageProducer
from app.protocol.magpie_pb2 import Answer
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.redis import Line, connect
from tests.contract.logs import PARTITIONS, Connect, Ownership, positions, values
from tests.contract.streams import FAST, take, until_appended, until_read, waiting_in


async def test_a_restart_with_nothing_left_is_gone_through(
    connect_breakable: Connect, breakable_valkey: ValkeyProcess
) -> None:
    broker, ownership = await connect_breakable(), Ownership()
    subscription = await broker.subscribe(ownership)
    await broker.append(1, [b"1"])
    await until_read(subscription, b"1")
    await breakable_valkey.stop()
    with pytest.raises(Busy):
        await subscription.fetch(10)
    with pytest.raises(Busy):
        await broker.backlog()
    with pytest.raises(Busy):
        await broker.subscribe(Ownership())
    ownership.fresh.clear()
    await breakable_valkey.start()
    await until_appended(broker, 1, b"2")
    await until_read(subscription, b"2")
    assert ownership.fresh == set(range(PARTITIONS))
    assert ownership.owned == set(range(PARTITIONS))
    await subscription.close()


async def test_sends_that_a_restart_lost_are_appended_again_before_later_ones(
    connect_breakable: Connect, breakable_valkey: ValkeyProcess
) -> None:
    class Anyone:
        """Lets everybody send, and takes every failure."""

        unacked = 0

        async def take_sends(self, user_ids: Sequence[int]) -> list[float]:
            return [0.0] * len(user_ids)

        def on_answer(self, request_id: int, answer: Answer) -> None:
            raise AssertionError

        def on_failure(self, request_id: int, error: AppError) -> None:
            assert isinstance(error, Busy | Internal)

    broker, anyone = await connect_breakable(), Anyone()
    bounds: dict[str, Any] = {
        "per_connection": 900,
        "per_partition": 900,
        "total": 900,
        "batch_max": 900,
        "pace_ms": 0,
    }
    producer = MessageProducer(broker, anyone, Metrics(), node_id="n", boot_id="b", send_timeout_s=60, **bounds)
    running = asyncio.ensure_future(producer.run())
    numbers = itertools.count(1)

    async def submit_until(in_log: int) -> None:
        async with asyncio.timeout(20):
            while (await waiting_in(broker)) < in_log:
                number = next(numbers)
                producer.submit(Draft(1, 2, UUID(int=number), "text", "x", b"h" * 32), anyone, number)

    await submit_until(5)
    before = await waiting_in(broker)
    await breakable_valkey.stop()
    restarting = asyncio.ensure_future(breakable_valkey.start())
    await submit_until(before + 5)
    await restarting
    running.cancel()
    await asyncio.wait({running})
    subscription = await broker.subscribe(Ownership())
    records = await take(subscription, await waiting_in(broker))
    read = [from_envelope(record.value).key[2].int for record in records]
    assert read[:before] == list(range(1, before + 1))
    assert read == sorted(read)
    await subscription.close()


async def test_what_comes_while_redis_is_connected_to_again_does_not_go_ahead_of_what_was_lost(
    connect_breakable: Connect, breakable_valkey: ValkeyProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await connect_breakable()
    await broker.append(0, [b"1"])
    broker.on_lost = lambda: True
    await breakable_valkey.stop()
    await breakable_valkey.start()
    connecting, go_on, connect = asyncio.Event(), asyncio.Event(), Line.open

    async def slowly(line: Line) -> bool:
        connecting.set()
        await go_on.wait()
        return await connect(line)

    monkeypatch.setattr(Line, "open", slowly)
    first = broker.append(0, [b"2"])
    await connecting.wait()
    second = broker.append(0, [b"3"])
    go_on.set()
    for append in (first, second):
        with pytest.raises(Busy):
            await append
    assert await waiting_in(broker) == 0


async def test_an_append_to_a_redis_that_is_gone_is_refused(
    connect_breakable: Connect, breakable_valkey: ValkeyProcess
) -> None:
    broker = await connect_breakable()
    await broker.append(0, [b"1"])
    await breakable_valkey.stop()
    for _ in range(3):
        with pytest.raises(Busy) as refused:
            await broker.append(0, [b"2"])
        assert (refused.value.outcome, refused.value.retry_after_ms) == ("none", 1000)
    await breakable_valkey.start()
    await until_appended(broker, 0, b"3")
    assert (await broker.backlog())[0] == 1


async def test_a_frozen_redis_ends_appends_in_time_with_an_unknown_outcome(
    connect_breakable: Connect, breakable_valkey: ValkeyProcess
) -> None:
    broker = await connect_breakable()
    subscription = await broker.subscribe(Ownership())
    await broker.append(0, [b"1"])
    first = await until_read(subscription, b"1")
    process = breakable_valkey._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        since = time.monotonic()
        with pytest.raises(Internal) as unknown:
            await broker.append(0, [b"2"])
        assert unknown.value.outcome == "unknown"
        with pytest.raises(Busy) as refused:
            await broker.append(0, [b"3"])
        assert refused.value.outcome == "none"
        assert time.monotonic() - since < FAST["append_timeout_s"] + 10
        with pytest.raises(Busy):
            await subscription.fetch(10)
        with pytest.raises(Busy):
            await subscription.commit(positions(first))
    finally:
        process.send_signal(signal.SIGCONT)
    await until_appended(broker, 0, b"4")
    # What was under way when Redis froze came before what was sent later; `1` may come again, after the lease was lost.
    came: list[bytes] = []
    async with asyncio.timeout(20):
        while b"4" not in came:
            try:
                came += values(await subscription.fetch(500))
            except Busy:
                await asyncio.sleep(0.02)
    assert came[-2:] == [b"2", b"4"]
    assert b"3" not in came
    await subscription.close()


async def test_what_waited_behind_an_append_that_failed_is_refused_and_nothing_else(
    connect_breakable: Connect, breakable_valkey: ValkeyProcess
) -> None:
    broker = await connect_breakable()
    await broker.append(0, [b"1"])
    process = breakable_valkey._process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        first = asyncio.ensure_future(broker.append(0, [b"2"]))
        await asyncio.sleep(0.1)  # it is under way now
        second = asyncio.ensure_future(broker.append(1, [b"3"]))
        ended = await asyncio.gather(first, second, return_exceptions=True)
    finally:
        process.send_signal(signal.SIGCONT)
    assert [type(error) for error in ended] == [Internal, Busy]
    await until_appended(broker, 1, b"4")


async def test_a_full_redis_refuses_appends_and_its_log_is_read_all_the_same(
    connect_breakable: Connect, breakable_valkey: ValkeyProcess
) -> None:
    broker, heir = await connect_breakable(), await connect_breakable()
    subscription = await broker.subscribe(Ownership())
    await broker.append(0, [b"1", b"2"])
    [first, _] = await until_read(subscription, b"1", b"2")
    admin = connect(breakable_valkey.url, pool_max=1, connect_timeout_s=2, command_timeout_s=2)
    await admin.config_set("maxmemory-policy", "noeviction")
    await admin.config_set("maxmemory", 1)
    with pytest.raises(Busy) as refused:
        await broker.append(0, [b"3"])
    assert refused.value.outcome == "none"
    # Who reads may go on, and leave; who comes may take over: only what is read makes room again.
    await subscription.commit(positions([first]))
    await asyncio.sleep(2)  # two leases
    await subscription.close()
    inherited = await heir.subscribe(Ownership())
    await inherited.commit(positions(await until_read(inherited, b"2")))
    assert (await broker.backlog())[0] == 0
    await admin.config_set("maxmemory", 0)
    await until_appended(broker, 0, b"4")
    await until_read(inherited, b"4")
    await inherited.close()
    await admin.aclose()
