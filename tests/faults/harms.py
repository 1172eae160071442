"""What is done to a cluster under load, once each time it is called. Each returns the seconds until it had recovered."""

import asyncio
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from app.brokers.base import Broker
from app.modules.messages.models import Draft, to_envelope
from app.parts import Parts
from app.protocol.magpie_pb2 import Origin
from app.settings import load as load_settings
from local.cluster import Cluster
from local.node import Node
from tests.cable import Cable
from tests.faults.conftest import PATIENCE
from tests.faults.load import Load
from tests.faults.process import freeze, thaw

RECOVERED_S = 10.0 * PATIENCE
"""After a kill: everything that waited is answered."""
DRAINED_S = 20.0 * PATIENCE
"""The same after a store was away."""
BACK_S = 10.0 * PATIENCE
"""After the death of a gateway everybody is connected again."""
GRACE_S = 30.0 * PATIENCE
"""What Kubernetes gives a process to end."""
ALSO_S = 0.5
NOTICED_S = 15.0 * PATIENCE
GROWTH_MAX_MB = 100.0
PASSAGES_MAX = 60
"""Batches until a crash point kills."""
POISON = {"ValueError", "CharacterNotInRepertoireError"}
"""Why each of the two kinds is put aside."""
FROZEN_S = {"kafka": 9.0, "redis_streams": 6.0}
"""Past the session or lease of a consumer."""


@dataclass
class Ground:
    """Where harm is done."""

    cluster: Cluster
    load: Load
    chance: random.Random
    broker: str
    away_s: float
    """How long a store stays away after it was noticed."""
    grown_mb: float = 0.0
    """How much a gateway's memory grew during an outage, at most."""
    cables: Sequence[Cable] = ()
    """Between one gateway and its stores."""

    @asynccontextmanager
    async def watching_memory(self) -> AsyncIterator[None]:
        """Gateways hold or refuse what comes during an outage; they must not pile it up."""
        gateways = [psutil.Process(node.pid) for node in self.cluster.of_role("gateway") if node.running]
        before = [gateway.memory_info().rss for gateway in gateways]
        yield
        for gateway, rss in zip(gateways, before, strict=True):
            self.grown_mb = max(self.grown_mb, (gateway.memory_info().rss - rss) / 1e6)
        assert self.grown_mb < GROWTH_MAX_MB, f"a gateway grew by {self.grown_mb:.0f} MB"

    async def stay_away(self) -> None:
        """A store is gone: gateways and consumers say so from soon on to the end of `away_s`, and pile nothing up."""
        nodes = [*self.cluster.of_role("gateway"), *self.cluster.of_role("consumer")]
        for node in nodes:
            await node.until_not_ready(NOTICED_S)
        async with self.watching_memory():
            await asyncio.sleep(self.away_s)  # how long it is away is the point, nothing is waited for
        for node in nodes:
            status, answer = await node.ready()
            assert status == 503, f"{node.name} says {answer} while a store is away"

    async def busy(self) -> None:
        """Wait until the load runs, then for a random moment of it."""
        await self.load.until_acked(30, within_s=30)
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))  # the moment is the point, nothing is waited for

    def any_of(self, role: str) -> Node:
        """One that runs."""
        return self.chance.choice([node for node in self.cluster.of_role(role) if node.running])

    async def answered(self, within_s: float) -> float:
        """Wait until everything is answered that waits now or is sent in the half second from now; seconds from now."""
        since, keys = time.monotonic(), self.load.waiting()
        await asyncio.sleep(ALSO_S)
        await self.load.until_answered(keys | self.load.waiting(), within_s)
        return time.monotonic() - since


async def kill_consumer(ground: Ground) -> float:
    """SIGKILL one of the consumers; the others take its partitions."""
    node = ground.any_of("consumer")
    await ground.busy()
    await node.kill()
    took_s = await ground.answered(RECOVERED_S)
    await node.start()
    return took_s


def crash(label: str) -> Callable[[Ground], Awaitable[float]]:
    """A consumer dies at a labelled point of a random batch."""

    async def once(ground: Ground) -> float:
        node = ground.any_of("consumer")
        await node.stop()
        await node.start(IM_TESTING__CRASH_POINT=f"{label}:{ground.chance.randint(1, PASSAGES_MAX)}")
        await node.gone()
        took_s = await ground.answered(RECOVERED_S)
        await node.start()
        return took_s

    return once


async def kill_gateway(ground: Ground, name: str = "") -> float:
    """SIGKILL this gateway, or that of somebody; its people connect elsewhere."""
    node = ground.cluster.nodes[name or ground.chance.choice(ground.load.members).node]
    await ground.busy()
    await node.kill()
    since = time.monotonic()
    await ground.load.until_online(BACK_S, but_at=node.name)
    took_s = time.monotonic() - since
    await ground.answered(RECOVERED_S)
    await node.start()
    return took_s


async def end_gateway(ground: Ground) -> float:
    """SIGTERM to the gateways in turn (after a kill all people are on one): they go one after the other, and each ends in order."""
    took_s = 0.0
    for node in ground.cluster.of_role("gateway"):
        await ground.busy()
        node.signal(signal.SIGTERM)
        since = time.monotonic()
        code = await node.ended(GRACE_S)
        assert code == 0, f"exit code {code}: {node.tail()}"
        took_s = max(took_s, time.monotonic() - since)
        await ground.load.until_online(BACK_S)
        await ground.answered(RECOVERED_S)
        await node.start()
    return took_s


async def empty_redis(ground: Ground) -> float:
    """Valkey dies and comes back with nothing in it: counters, caches, leases, and with Redis Streams the log."""
    await ground.busy()
    store(ground.cluster, "valkey-server").kill()
    # What was in an emptied log is sent again after messages.send_timeout_s.
    return await ground.answered(DRAINED_S)


async def freeze_redis(ground: Ground) -> float:
    """Valkey answers nothing for a while."""
    return await _away(ground, "valkey-server")


async def freeze_postgres(ground: Ground) -> float:
    """PostgreSQL answers nothing for a while."""
    return await _away(ground, "postgres")


async def _away(ground: Ground, program: str) -> float:
    await ground.busy()
    main = store(ground.cluster, program)
    processes = [main, *main.children(recursive=True)]
    freeze(processes)
    try:
        await ground.stay_away()
    finally:
        thaw(processes)
    return await ground.answered(DRAINED_S)


async def kill_kafka(ground: Ground) -> float:
    """Kafka dies and is started again after a while."""
    kafka = ground.cluster.kafka
    assert kafka is not None
    await ground.busy()
    await asyncio.to_thread(kafka.kill)
    await ground.stay_away()
    await kafka.start()
    return await ground.answered(DRAINED_S)


async def freeze_kafka(ground: Ground) -> float:
    """Kafka answers nothing for a while."""
    kafka = ground.cluster.kafka
    assert kafka is not None
    await ground.busy()
    kafka.freeze()
    try:
        await ground.stay_away()
    finally:
        kafka.thaw()
    return await ground.answered(DRAINED_S)


async def freeze_consumer(ground: Ground) -> float:
    """A consumer sleeps past its session or lease, others take its partitions, and it wakes up believing that they are still its own."""
    node = ground.any_of("consumer")
    await ground.busy()
    node.signal(signal.SIGSTOP)
    try:
        took_s = await ground.answered(RECOVERED_S)
        await asyncio.sleep(max(0.0, FROZEN_S[ground.broker] - took_s))  # past its session
    finally:
        node.signal(signal.SIGCONT)
    await node.until_ready()
    await ground.answered(RECOVERED_S)
    return took_s


async def come_and_go(ground: Ground) -> float:
    """A consumer leaves or comes every 5 s; returns how old the oldest send without an answer was, as the 99th percentile.

    As in a rolling restart none leaves before another one is ready: on a busy machine one takes longer than 5 s to start.
    """
    await ground.busy()
    nodes, changes, rounds = ground.cluster.of_role("consumer"), 0, round(ground.away_s / 5)
    async with _ages(ground.load) as ages:
        for _ in range(rounds):
            node = ground.chance.choice(nodes)
            others = [other for other in nodes if other is not node and other.running]
            if node.running and any([(await other.ready())[0] == 200 for other in others]):
                await node.stop()
                changes += 1
            elif not node.running:
                await node.launch()
                changes += 1
            await asyncio.sleep(5)  # the rhythm is the point
    assert changes >= rounds / 2, f"{changes} changes in {rounds} rounds"
    for node in nodes:
        if not node.running:
            await node.launch()
        await node.until_ready()
    ages.sort()
    return ages[int(len(ages) * 0.99)]


async def poison(ground: Ground) -> float:
    """Records that cannot be stored, one in about a thousand: they are put aside and everything else goes on."""
    await ground.busy()
    cluster, added = ground.cluster, 0
    member = ground.chance.choice(ground.load.members)
    group = ground.chance.choice(list(member.inbox.have))
    before = (await _dead_letters(cluster)).total()
    until = time.monotonic() + ground.away_s
    async with _log_of(cluster) as broker:
        while time.monotonic() < until:
            # No envelope at all; and one with a text that PostgreSQL refuses.
            for value in (b"not an envelope", _unstorable(group, member.user_id)):
                await broker.append(broker.partition_of(group), [value])
                added += 1
            await asyncio.sleep(2 * 1000 / 500)  # two of a thousand, at 500 messages a second
    since = time.monotonic()
    took_s = await ground.answered(RECOVERED_S)
    while (letters := await _dead_letters(cluster)).total() - before < added:
        assert time.monotonic() - since < RECOVERED_S, "poison was not put aside"
        await asyncio.sleep(0.05)
    assert letters.total() - before == added, f"{added} were poison, put aside for these reasons: {letters}"
    assert set(letters) == POISON, letters
    return max(took_s, time.monotonic() - since)


def _unstorable(group: int, sender: int) -> bytes:
    return to_envelope(Draft(group, sender, uuid.uuid4(), "text", "\0", bytes(32)), Origin(node_id="nobody"))


async def _dead_letters(cluster: Cluster) -> Counter[str]:
    """Reason → how many."""
    connection = await asyncpg.connect(cluster.dsn)
    try:
        rows = await connection.fetch("SELECT reason, count(*) FROM dead_letters GROUP BY reason")
        return Counter({row[0]: row[1] for row in rows})
    finally:
        await connection.close()


@asynccontextmanager
async def _log_of(cluster: Cluster) -> AsyncIterator[Broker]:
    """The log as another process of the cluster has it."""
    sections: dict[str, dict[str, object]] = {
        "broker": {"kind": "kafka" if cluster.kafka else "redis_streams"},
        "redis": {"url": cluster.stores.redis_url},
    }
    if cluster.kafka:
        sections["kafka"] = {"bootstrap_servers": [cluster.kafka.address]}
    broker = Parts(load_settings(sections), lambda _: None).broker
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def same_id(ground: Ground) -> float:
    """The same send two to five times at once, over both gateways and perhaps HTTP: every try gets the same answer."""
    load, chance = ground.load, ground.chance
    member = chance.choice(load.members)
    group, key = chance.choice(list(member.inbox.have)), str(uuid.UUID(int=chance.getrandbits(128), version=4))
    since = time.monotonic()
    ways = [node.url for node in ground.cluster.of_role("gateway")] + [""] * chance.randint(0, 3)
    chance.shuffle(ways)
    tries = [load.once_more(member, group, key, gateway) for gateway in ways]
    answers = await asyncio.gather(*tries)
    load.written += 1
    assert len(set(answers)) == 1, f"one send, answers {answers}"
    return time.monotonic() - since


@asynccontextmanager
async def _ages(load: Load) -> AsyncIterator[list[float]]:
    """Looks every 50 ms for how long the oldest send waits already."""
    ages = [0.0]

    async def look() -> None:
        first_seen: dict[str, float] = {}
        while True:
            now, waiting = time.monotonic(), load.waiting()
            first_seen = {key: first_seen.get(key, now) for key in waiting}
            ages.append(now - min(first_seen.values(), default=now))
            await asyncio.sleep(0.05)

    looking = asyncio.create_task(look())
    try:
        yield ages
    finally:
        looking.cancel()
        await asyncio.wait({looking})


def store(cluster: Cluster, program: str) -> psutil.Process:
    """The store of the cluster that has this program; other tests of this process have theirs elsewhere."""
    for child in psutil.Process().children(recursive=True):
        if child.name() == program and Path(child.cwd()).is_relative_to(cluster.folder):
            return child
    raise AssertionError(f"no {program} of the cluster runs below this process")


@dataclass(frozen=True)
class Harm:
    """One row of the report: what is done, how often, how long a store is away, and what may not be exceeded."""

    once: Callable[[Ground], Awaitable[float]]
    full: int
    short: int
    limit_s: float
    measure: str = "until everything that waited was answered"
    away_s: tuple[float, float] = (0.0, 0.0)
    """Full and short."""
    only: str = ""
    """The broker it is about."""
    short_only: str = ""
    """The broker on which the short form does it; elsewhere only the full form."""


OUTAGE_S = (30.0, 2.0)
HARMS: Mapping[str, Harm] = {
    "consumer killed": Harm(kill_consumer, 50, 1, RECOVERED_S),
    "killed after reading": Harm(crash("after_read"), 20, 0, RECOVERED_S),
    "killed before the commit": Harm(crash("before_commit"), 20, 0, RECOVERED_S),
    "killed before publishing": Harm(crash("before_publish"), 20, 0, RECOVERED_S),
    "killed before the position": Harm(crash("before_position"), 20, 1, RECOVERED_S, short_only="redis_streams"),
    "gateway killed": Harm(kill_gateway, 20, 1, BACK_S, "until everybody was connected again"),
    "gateway told to end": Harm(end_gateway, 10, 1, GRACE_S, "until it had ended in order", short_only="redis_streams"),
    "Redis restarted empty": Harm(empty_redis, 20, 1, DRAINED_S, short_only="redis_streams"),
    "Redis frozen": Harm(freeze_redis, 3, 0, DRAINED_S, away_s=OUTAGE_S),
    "PostgreSQL frozen": Harm(freeze_postgres, 3, 1, DRAINED_S, away_s=OUTAGE_S, short_only="redis_streams"),
    "Kafka killed": Harm(kill_kafka, 3, 1, DRAINED_S, away_s=OUTAGE_S, only="kafka"),
    "Kafka frozen": Harm(freeze_kafka, 3, 0, DRAINED_S, away_s=OUTAGE_S, only="kafka"),
    "consumer asleep past its session": Harm(freeze_consumer, 5, 1, RECOVERED_S),
    "the same id at once": Harm(same_id, 300, 5, RECOVERED_S, "until every try was answered"),
    "poison, one in 1,000": Harm(
        poison, 1, 1, RECOVERED_S, "until it was put aside and what waited was answered", (60.0, 1.0)
    ),
    "consumers come and go": Harm(come_and_go, 1, 0, 2.0, "age of the oldest unanswered send, P99", (300.0, 0.0)),
}
