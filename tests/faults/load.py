"""Members who write at a fixed rate whatever happens to the server, and the verdict on what they saw."""

import asyncio
import gc
import logging
import os
import random
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

import aiohttp
import msgspec
import pytest

from app.protocol.frames import SUBPROTOCOL
from bench.history import Recorder, Report, check, digest
from bench.history import load as load_history
from bench.plan import Shape
from bench.seed import seed as seed_population
from tests.faults.conftest import PATIENCE
from tests.faults.member import Member
from tests.faults.tally import Place, Tally

log = logging.getLogger("faults")

DRAIN_S = 30.0
"""A fault may have left up to ten seconds of unanswered sends; then they are repeated."""
SEEN_S = 17.0
"""Beyond the 15 s of the contract, so that the checker can tell unseen from not yet."""
STARTS, STARTS_EVERY_S = 50, 0.25
"""Thousands come in through one proxy, with a TLS handshake each; what they do to it all at once is a test of its own."""
ONLINE_S = 60.0
READ_S = 60.0
READERS = 8
REQUESTS_AT_ONCE = 64
COLLECTIONS = (50_000, 20, 20)
"""Thresholds of the garbage collector under load: the usual ones cost a fifth of the time in which a thousand members come back."""
LOOK_S = 0.02
MIN_ACKED = 20


class Served(Protocol):
    """What a load is put on."""

    @property
    def url(self) -> str: ...

    @property
    def dsn(self) -> str: ...

    secret: str

    def tail(self) -> str:
        """The end of its log."""


class Load:
    """Use `loading`. `seed` decides who writes where and when."""

    def __init__(self, server: Served, place: Place, members: list[Member], rate: float, seed: int) -> None:
        self.server = server
        self.tally = place.tally
        self.members = members
        self.seed = seed
        self.written = 0
        """Messages that members have taken on."""
        self._place = place
        self._rate = rate
        self._chance = random.Random(seed)  # noqa: S311 - must be repeatable
        self._groups = [
            (g, [m for m in members if g in m.inbox.have]) for g in sorted({g for m in members for g in m.inbox.have})
        ]
        self._sending = asyncio.Event()
        self._sending.set()

    async def traffic(self) -> None:
        """Open loop: one message of a random member to a random group at every tick, late ones all at once."""
        due = time.monotonic()
        while True:
            if not self._sending.is_set():
                await self._sending.wait()
                due = time.monotonic()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._sending.is_set():
                self._one(*self._chance.choice(self._groups))
            due += self._chance.expovariate(self._rate)

    def _one(self, group: int, members: Sequence[Member]) -> None:
        member, key = self._chance.choice(members), uuid.UUID(int=self._chance.getrandbits(128), version=4)
        self.written += member.send(group, str(key), f"{key.hex[:8]} 你好 {'x' * self._chance.randrange(100)}")

    def burst(self) -> None:
        """Every member writes one message now."""
        for member in self.members:
            self._one(self._chance.choice(list(member.inbox.have)), [member])

    def pause(self) -> None:
        """Nobody writes anything new."""
        self._sending.clear()

    def go_on(self) -> None:
        """The load begins again."""
        self._sending.set()

    async def until_online(self, within_s: float, *, but_at: str = "") -> None:
        """Wait until every member has resumed, none at that node: who believes to be there has not noticed yet that it died."""
        since = time.monotonic()
        while away := sum(not member.online or member.node == but_at for member in self.members):
            if time.monotonic() - since > within_s:
                pytest.fail(f"{away} members not connected after {within_s} s: {self.summary()}\n{self.server.tail()}")
            await asyncio.sleep(LOOK_S)

    async def until_offline(self, within_s: float) -> None:
        """Wait until nobody is connected."""
        async with asyncio.timeout(within_s):
            while any(member.online for member in self.members):
                await asyncio.sleep(LOOK_S)

    async def until_acked(self, more: int, within_s: float) -> None:
        """Wait for `more` further acks: the load runs again. `within_s` is for a quiet machine."""
        goal, within_s = self.tally.acked + more, within_s * PATIENCE
        try:
            async with asyncio.timeout(within_s):
                while self.tally.acked < goal:
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            pytest.fail(f"no {more} acks within {within_s} s: {self.summary()}\n{self.server.tail()}")

    async def once_more(self, member: Member, group: int, key: str, gateway: str) -> tuple[int, str, int]:
        """One try of a send that is tried several times at once: over a socket of its own at `gateway`, or over HTTP. (seq, id, ts)."""
        body, conn, recorder = f"{key[:8]} at once", f"{member.name}/{uuid.uuid4()}", self._place.recorder
        op = recorder.invoke(
            group=group, sender=member.user_id, client_msg_id=key, digest=digest("text", body), conn=conn
        )
        message = {"client_msg_id": key, "kind": "text", "body": body}
        if gateway:
            answer = await self._over_socket(f"{gateway}/ws", member, {"group_id": str(group), **message})
        else:
            url = f"{self._place.url}/api/v1/groups/{group}/messages"
            async with self._place.http.post(url, json=message, headers=member.headers) as response:
                answer = await response.json()
        assert "seq" in answer, answer
        recorder.ok(op, answer["seq"], answer["message_id"])
        return answer["seq"], answer["message_id"], answer["ts"]

    async def _over_socket(self, url: str, member: Member, message: dict[str, Any]) -> dict[str, Any]:
        async with self._place.http.ws_connect(url, headers=member.headers, protocols=(SUBPROTOCOL,)) as ws:
            await ws.send_json({"id": 1, "type": "message.send", **message})
            while (answer := await ws.receive_json()).get("id") != 1:
                pass
            return dict(answer)

    async def drain(self) -> float:
        """Stop writing and wait until nobody waits for an answer; returns how long that took."""
        self.pause()
        since = time.monotonic()
        while waiting := sum(len(member.outbox) for member in self.members):
            if time.monotonic() - since > DRAIN_S:
                pytest.fail(f"{waiting} sends without an answer: {self.summary()}\n{self.server.tail()}")
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - since

    async def until_seen(self, within_s: float = SEEN_S) -> float:
        """When everything written is stored, wait until every member has it, at most `within_s`; returns how long that took."""
        readers = {group: member for member in self.members for group in member.inbox.have}
        async with asyncio.timeout(DRAIN_S):
            while True:
                heads = {group: await member.inbox.head(group) for group, member in readers.items()}
                if sum(heads.values()) >= self.written:
                    break
                await asyncio.sleep(LOOK_S)
        since = time.monotonic()
        while time.monotonic() - since < within_s:
            if all(seq >= heads[group] for member in self.members for group, seq in member.inbox.have.items()):
                break
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - since

    async def read_all(self) -> None:
        """Every member reads the whole history of all its groups."""
        slots = asyncio.Semaphore(READERS)

        async def read(member: Member, group: int) -> None:
            async with slots:
                began = self._place.recorder.now()
                items, _ = await self._history(member, group)
                self._place.recorder.final_history(member=member.user_id, group=group, items=items, began=began)

        await asyncio.gather(*(read(member, group) for member in self.members for group in member.inbox.have))

    async def _history(self, member: Member, group: int) -> tuple[msgspec.Raw, int]:
        async with asyncio.timeout(READ_S):
            while (history := await member.inbox.history(group)) is None:
                await asyncio.sleep(LOOK_S)
        return history

    def waiting(self) -> set[str]:
        """The ids of all sends without an answer."""
        return {key for member in self.members for key in member.outbox}

    async def until_answered(self, keys: set[str], within_s: float) -> float:
        """Wait until none of these sends waits any more; returns how long that took."""
        since = time.monotonic()
        while left := keys & self.waiting():
            if time.monotonic() - since > within_s:
                pytest.fail(f"{len(left)} sends unanswered after {within_s} s: {self.summary()}\n{self.server.tail()}")
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - since

    def summary(self) -> str:
        """One line about the run."""
        t = self.tally
        errors = ", ".join(f"{count} {name}" for name, count in t.errors.most_common())
        refused = ", ".join(f"{count} with {status}" for status, count in t.refused.most_common())
        return (
            f"seed {self.seed}: {t.acked} acked, {t.resent} sent again, {t.connects} connects, refused: {refused or 'none'},"
            f" {t.gaps} gaps, {t.skipped} skipped, errors: {errors or 'none'}"
        )


@dataclass(frozen=True)
class Size:
    """Of a load; another one by `FAULTS_LOAD=users,group_size,groups_per_user,messages_per_second`, and sizes of further groups."""

    users: int
    group_size: int
    groups_per_user: int
    rate: float
    more_groups: tuple[int, ...] = ()

    @classmethod
    def of_environment(cls, full: str = "200,10,1,500,50,200") -> Self:
        """`full` is for the full form. Raises ValueError."""
        usual = full if os.environ.get("FAULTS") == "full" else "24,8,2,120"
        users, group_size, groups_per_user, rate, *more = (os.environ.get("FAULTS_LOAD") or usual).split(",")
        return cls(int(users), int(group_size), int(groups_per_user), float(rate), tuple(map(int, more)))


@asynccontextmanager
async def loading(
    server: Served, path: Path, *, seed: int, size: Size | None = None, trust: ssl.SSLContext | None = None
) -> AsyncIterator[Load]:
    """Run a load while the block does harm; after it everything is drained, read and judged. `trust` is for https.

    Fails the test when there is an anomaly; the history stays in `path`.
    """
    size = size or Size.of_environment()
    shape = Shape(
        users=size.users,
        group_size=size.group_size,
        groups_per_user=size.groups_per_user,
        more_groups=size.more_groups,
        senders=size.users,
        rate=1.0,
        duration_s=1.0,
    )
    people = await seed_population(server.dsn, server.secret, shape, seed)
    tally = Tally()
    with Recorder(path) as recorder:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=REQUESTS_AT_ONCE, ssl=trust or True),
            timeout=aiohttp.ClientTimeout(total=20),
        ) as http:
            place = Place(server.url, http, trust, recorder, tally)
            members = [Member(p.user_id, p.token, p.groups, place, seed) for p in people]
            load = Load(server, place, members, size.rate, seed)
            tasks: list[asyncio.Task[None]] = []
            usual_collections = gc.get_threshold()
            try:
                for first in range(0, len(members), STARTS):
                    tasks += [asyncio.create_task(member.run()) for member in members[first : first + STARTS]]
                    for task in tasks[first:]:
                        task.add_done_callback(partial(_tell_of_death, tally))
                    await asyncio.sleep(STARTS_EVERY_S)
                await load.until_online(ONLINE_S)
                # Members by the thousand are looked through by every full collection.
                gc.collect()
                gc.freeze()
                gc.set_threshold(*COLLECTIONS)
                tasks.append(asyncio.create_task(load.traffic()))
                yield load
                drained_s = await load.drain()
                seen_s = await load.until_seen()
                await load.read_all()
            finally:
                gc.set_threshold(*usual_collections)
                gc.unfreeze()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    report = check(load_history([path]))
    log.info("%s; drained in %.1f s, all seen after %.1f s", load.summary(), drained_s, seen_s)
    judge(report, load, path)


def _tell_of_death(tally: Tally, member: asyncio.Task[None]) -> None:
    """A member runs until it is cancelled; without it its sends would be waited for in vain."""
    if not member.cancelled() and (error := member.exception()) is not None:
        log.error("a member of the load died", exc_info=error)
        tally.broken.append(f"a member of the load died: {error!r}")


def judge(report: Report, load: Load, path: Path) -> None:
    """Fail on any anomaly, naming the file."""
    problems = [f"{a.kind}: {a.detail}" for a in report.examples] + load.tally.broken[:20]
    if not report.clean or load.tally.broken or load.tally.acked < MIN_ACKED:
        pytest.fail(
            f"{dict(report.counts)} {report.unread_groups} unread, {report.unjudged} unjudged;"
            f" {load.summary()}; history: {path}\n" + "\n".join(problems) + f"\n{load.server.tail()}"
        )
