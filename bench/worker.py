"""One process of the load generator: `python -m bench.worker`, driven by JSON lines on its standard input.

It reads a `WorkerPlan`, then commands; it writes reports. See `plan.py`.
"""

import asyncio
import gc
import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import uvloop
from picows import WSError, WSHandshakeError, ws_connect

from app.protocol.frames import SUBPROTOCOL
from bench.client import Client, Tally
from bench.corpus import Corpus
from bench.history import Recorder
from bench.plan import (
    MIN_BODY_CHARS,
    Begin,
    Command,
    Connected,
    Finish,
    Member,
    Progress,
    Report,
    Result,
    Sent,
    WorkerPlan,
)
from bench.pulls import Puller
from bench.wire import Reader

PROGRESS_S = 0.25
PORTS_PER_ADDRESS = 20_000
"""Linux has 28,232 ephemeral ports by default; one source address serves this many connections to one server."""
HANDSHAKES_MAX = 200
TRIES_MAX = 20
RETRY_S = 0.5
MAX_RETRY_S = 5.0
PING_TURNS_PER_S = 4
BURST_MAX = 64
"""Overdue sends written before answers are read again."""
BODIES = 1000
"""Different ones per worker, made in advance: a search index feels whether words repeat."""


class Worker:
    """Connects its members, plays the schedule, and reports."""

    def __init__(self, plan: WorkerPlan, puller: Puller, recorder: Recorder | None) -> None:
        self._plan = plan
        self._puller = puller
        self._recorder = recorder
        chance = random.Random(f"{plan.seed} {plan.number}")
        self._chance = chance
        self.tally = Tally(
            reader=Reader(recording=recorder is not None),
            recorder=recorder,
            fillers=_fillers(chance, plan.shape.body_chars - MIN_BODY_CHARS),
            prefix=f"{os.getpid():08x}-{plan.number:04x}-4{chance.getrandbits(12):03x}-8{chance.getrandbits(12):03x}",
            group_sizes=plan.group_sizes,
            pull=puller.pull,
        )
        self.clients = [Client(member, self.tally) for member in plan.members]
        self.failures: Counter[str] = Counter()
        self.connect_us: Counter[int] = Counter()

    async def connect_all(self) -> None:
        """Open every connection, at the planned rate; refusals are tried again, failures are counted."""
        slots = asyncio.Semaphore(HANDSHAKES_MAX)
        start = time.monotonic()
        async with asyncio.TaskGroup() as handshakes:
            for number, client in enumerate(self.clients):
                due = start + number / self._plan.connect_rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await slots.acquire()
                handshakes.create_task(self._connect(client, number, slots))

    async def _connect(self, client: Client, number: int, slots: asyncio.Semaphore) -> None:
        since = time.monotonic_ns()
        try:
            failure = ""
            for _ in range(TRIES_MAX):
                try:
                    await self._handshake(client, number)
                    self.connect_us[(time.monotonic_ns() - since) // 1000] += 1
                    return
                except WSHandshakeError as error:
                    status = error.response.status if error.response else 0
                    failure = f"HTTP {int(status)}"
                    after = error.response.headers.get("Retry-After") if error.response else None
                    if status not in (0, 429, 503):
                        break
                    wait = min(float(after or RETRY_S), MAX_RETRY_S)
                except (OSError, WSError, TimeoutError) as error:
                    failure, wait = type(error).__name__, RETRY_S
                await asyncio.sleep(wait * (0.5 + self._chance.random()))
            self.failures[failure] += 1
        finally:
            slots.release()

    async def _handshake(self, client: Client, number: int) -> None:
        greeted = asyncio.Event()
        client.greeted = greeted.set
        # Beyond the ports of one source address the next 127.0.0.x is used.
        source = number // PORTS_PER_ADDRESS
        local = (f"127.0.0.{1 + source}", 0) if source else None
        async with asyncio.timeout(self._plan.connect_timeout_s):
            await ws_connect(
                lambda: client,
                self._plan.ws_urls[number % len(self._plan.ws_urls)],
                extra_headers={
                    "Authorization": f"Bearer {client.member.token}",
                    "Sec-WebSocket-Protocol": SUBPROTOCOL,
                },
                websocket_handshake_timeout=self._plan.connect_timeout_s,
                read_buffer_init_size=4096,
                local_addr=local,
            )
            await greeted.wait()
        client.greeted = None

    async def keep_alive(self) -> None:
        """Ping every connection once per heartbeat, a few at a time."""
        position = 0.0
        while True:
            await asyncio.sleep(1 / PING_TURNS_PER_S)
            count = len(self.clients)
            heartbeat_s = next((c.heartbeat_s for c in self.clients if c.heartbeat_s), 0.0)
            if not heartbeat_s:
                continue
            # A little more often than asked for, so that a slow turn is not taken for death.
            end = position + count / (heartbeat_s * 0.8 * PING_TURNS_PER_S)
            for index in range(int(position), int(end)):
                self.clients[index % count].ping()
            position = end % count

    async def play(self, start_ns: int) -> None:
        """Send everything at its time. The times do not move, however the server behaves."""
        shape = self._plan.shape
        schedule = make_schedule(self._plan.members, shape.rate, shape.load_s, self._chance)
        self.tally.counted_from_ns = start_ns + round(shape.warm_up_s * 1e9)
        turns = [0] * len(self.clients)
        for client in self.clients:
            if client.member.slow:
                client.stop_reading()
        for number, (offset, index) in enumerate(schedule):
            due = start_ns + offset
            wait_ns = due - time.monotonic_ns()
            if wait_ns > 0:
                # uvloop rounds to milliseconds; half a millisecond more keeps it from being early.
                await asyncio.sleep(wait_ns / 1e9 + 0.0005)
            elif number % BURST_MAX == 0:
                await asyncio.sleep(0)
            client = self.clients[index]
            groups = client.member.groups
            client.send(due, groups[turns[index] % len(groups)])
            turns[index] += 1
        await asyncio.sleep(max(0.0, start_ns / 1e9 + shape.load_s - time.monotonic()))

    async def finish(self) -> Result:
        """Read the histories, close, and sum up."""
        if self._recorder:
            await self._puller.read_histories(self._plan, self._recorder)
        connected = self.tally.progress.connected
        for client in self.clients:
            client.close()
        tally = self.tally
        return Result(
            progress=msgspec.structs.replace(tally.progress, connected=connected),
            warm_up_us=tally.warm_up_us,
            ack_us=tally.ack_us,
            delivery_us=tally.delivery_us,
            late_us=tally.late_us,
            connect_us=self.connect_us,
            errors=tally.errors,
            not_sent=tally.not_sent,
            closed=tally.closed,
            gaps=tally.gaps,
            pulled=tally.pulled,
            pull_failures=self._puller.failures,
        )


def make_schedule(
    members: Sequence[Member], rate: float, duration_s: float, chance: random.Random
) -> list[tuple[int, int]]:
    """(offset in ns, index of the member), rising: every sender at an even pace from a random moment on."""
    if rate <= 0:
        return []
    step = round(1e9 / rate)
    end = round(duration_s * 1e9)
    schedule = []
    for index, member in enumerate(members):
        if member.sends:
            schedule += [(offset, index) for offset in range(round(chance.random() * step), end, step)]
    schedule.sort()
    return schedule


def _fillers(chance: random.Random, chars: int) -> Iterator[str]:
    """Endless texts of this length, Chinese and English."""
    corpus = Corpus(chance.getrandbits(32))
    texts = []
    for _ in range(BODIES):
        text = corpus.message()
        while len(text) < chars:
            text += " " + corpus.message()
        texts.append(text[:chars])
    return itertools.cycle(texts)


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 30)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _report(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


async def _progress(progress: Progress) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        _report(progress)


async def _run() -> None:
    lines = await _lines()
    plan = msgspec.json.decode(await lines.readline(), type=WorkerPlan)
    commands = msgspec.json.Decoder(Command)
    async with Puller(plan.api_url, plan.seed) as puller:
        with ExitStack() as stack:
            recorder = stack.enter_context(Recorder(Path(plan.history))) if plan.history else None
            worker = Worker(plan, puller, recorder)
            helpers = [
                asyncio.create_task(_progress(worker.tally.progress)),
                asyncio.create_task(worker.keep_alive()),
            ]
            try:
                await worker.connect_all()
                _report(Connected(worker.failures))
                # Collections of a growing heap of pending sends would show up as latency.
                gc.collect()
                gc.freeze()
                while line := await lines.readline():
                    match commands.decode(line):
                        case Begin(at_ns=at_ns):
                            await worker.play(at_ns)
                            _report(worker.tally.progress)
                            _report(Sent())
                        case Finish():
                            _report(await worker.finish())
                            break
            finally:
                for task in helpers:
                    task.cancel()


def main() -> None:
    """Run until told to finish, or until the input ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run())


if __name__ == "__main__":
    main()
