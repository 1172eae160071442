"""A person with one device: sends until answered, keeps a cursor per group, comes back after every disconnect.

Smaller than the reference client and less careful with the server: several sends of one group are under way at once.
"""

import asyncio
import itertools
import json
import logging
import random
import time
from dataclasses import dataclass

import aiohttp
import msgspec

from bench.history import digest
from tests.faults.conftest import PATIENCE
from tests.faults.inbox import Inbox
from tests.faults.socket import Refused, Socket
from tests.faults.tally import Place
from tests.faults.wire import FRAME, Backoff, Frame

log = logging.getLogger("faults")

BACKOFF_S = 0.3
"""Longest wait between two tries; short, so that a server meets its load as soon as it is back."""
IN_FLIGHT_MAX = 32
"""Half of what the server allows a connection."""
OUTBOX_MAX = 500
DOUBLINGS_MAX = 10
HELLO_S = 15.0
PING_S = 20.0
PING = json.dumps({"id": 0, "type": "ping"})
ANSWER_S = 15.0 * PATIENCE
"""What is not answered is told `timeout` after `messages.send_timeout_s`, which is 10; this process is not always quick to read it."""
REPEAT = {"busy", "rate_limited", "timeout", "internal"}


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message until it is acked or refused for good."""

    group: int
    client_msg_id: str
    body: str
    attempts: int = 0
    op: int = 0
    """Of the attempt under way; 0: none."""
    since: float = 0.0
    """When that began."""
    not_before: float = 0.0


class Member:
    """One user. `run` until cancelled."""

    def __init__(self, user_id: int, token: str, groups: list[int], place: Place, seed: int) -> None:
        self.user_id = user_id
        self.name = str(user_id)
        self._chance = random.Random(f"{seed} {user_id}")  # noqa: S311 - must be repeatable
        self.inbox = Inbox(self.name, token, groups, place, self._chance)
        self.outbox: dict[str, Outgoing] = {}
        """In the order of sending."""
        self.online = False
        self.node = ""
        """Where it is connected, or was last."""
        self.patient = False
        """Comes back as `hello.backoff` says; else as fast as it can."""
        self.headers = {"Authorization": f"Bearer {token}"}
        self._place = place
        self._in_flight: dict[int, Outgoing] = {}
        self._resumes: dict[int, dict[int, int]] = {}
        self._wake_up = asyncio.Event()
        self._requests = itertools.count(1)
        self._lives = 0
        self._epoch = ""
        self._gateway = f"{place.url}/ws"
        self._node = ""
        self._failed: str | None = None
        """A node that did not let us in."""
        self._backoff = Backoff(0, 0)
        self._tries = 0
        self._heard = 0.0
        """When the last frame came."""

    def send(self, group: int, client_msg_id: str, body: str) -> bool:
        """Send as soon as there is a connection; False when too many wait already."""
        if len(self.outbox) >= OUTBOX_MAX:
            self._place.tally.skipped += 1
            return False
        self.outbox[client_msg_id] = Outgoing(group, client_msg_id, body)
        self._wake_up.set()
        return True

    async def run(self) -> None:
        """Stay connected."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.inbox.pull_forever())
            while True:
                await self._ask_where()
                self._failed = self._node
                try:
                    async with self._place.handshakes:
                        socket = await Socket.open(self._gateway, self.headers, self._place.trust)
                    try:
                        await self._live(socket)
                    finally:
                        socket.close()
                except Refused as error:
                    self._place.tally.refused[error.status] += 1
                    if error.status in (401, 403):
                        self._place.tally.broken.append(f"{self.name} was refused with {error.status}")
                except (OSError, TimeoutError):
                    pass
                await asyncio.sleep(self._wait_s() * self._chance.random())

    def _wait_s(self) -> float:
        """The longest wait before the next try."""
        self._tries += 1
        if not self.patient:
            return BACKOFF_S
        return min(self._backoff.base_ms << min(self._tries, DOUBLINGS_MAX), self._backoff.max_ms) / 1000

    async def place(self) -> str:
        """The node of the gateway that an api names now. Raises aiohttp errors."""
        async with self._place.http.get(f"{self._place.url}/api/v1/gateway", headers=self.headers) as answer:
            answer.raise_for_status()
            return str((await answer.json())["node"])

    async def _ask_where(self) -> None:
        """Which gateway to try; while nobody answers, the last one."""
        try:
            async with self._place.http.get(
                f"{self._place.url}/api/v1/gateway",
                params={"not": self._failed} if self._failed else {},
                headers=self.headers,
            ) as answer:
                if answer.status == 200:
                    named = await answer.json()
                    self._gateway, self._node = named["url"], named["node"]
        except (aiohttp.ClientError, TimeoutError):
            pass

    async def _live(self, socket: Socket) -> None:
        """One connection, from hello to its end."""
        async with asyncio.timeout(HELLO_S):
            while (text := await socket.receive()) and FRAME.decode(text).type != "hello":
                pass
        if not text:
            return
        place, inbox = self._place, self.inbox
        hello = FRAME.decode(text)
        self.node, self._backoff, self._tries = hello.node, hello.backoff or self._backoff, 0
        epoch = hello.epoch
        if self._epoch and epoch != self._epoch:
            place.tally.broken.append(f"{self.name} was told to forget its cursors")
        self._epoch = epoch
        self._failed = None
        self._lives += 1
        inbox.conn = f"{self.name}/{self._lives}"
        place.tally.connects += 1
        place.recorder.online(self.name, {g: s if self._lives == 1 else None for g, s in inbox.have.items()})
        try:
            async with asyncio.TaskGroup() as tasks:
                others = [tasks.create_task(self._write(socket)), tasks.create_task(self._ping(socket))]
                await self._read(socket)
                for other in others:
                    other.cancel()
        finally:
            self.online = False
            place.recorder.offline(self.name)
            for outgoing in self._in_flight.values():
                place.recorder.info(outgoing.op, "disconnected")
                outgoing.op = 0
            self._in_flight.clear()
            self._resumes.clear()
            if socket.close_code is not None and 4500 <= socket.close_code < 5000:
                place.tally.broken.append(f"{self.name} was closed with {socket.close_code}")

    async def _write(self, socket: Socket) -> None:
        """Resume, then send what waits, oldest first."""
        try:
            number, asked = next(self._requests), dict(self.inbox.have)
            self._resumes[number] = asked
            groups = {str(group): {"seq": seq} for group, seq in asked.items()}
            socket.send(json.dumps({"id": number, "type": "resume", "groups": groups}))
            while True:
                self._wake_up.clear()
                now = time.monotonic()
                waiting = [outgoing for outgoing in self.outbox.values() if not outgoing.op]
                for outgoing in waiting:
                    if outgoing.not_before <= now and len(self._in_flight) < IN_FLIGHT_MAX:
                        socket.send(self._attempt(outgoing))
                later = [o.not_before for o in waiting if o.not_before > now]
                try:
                    await asyncio.wait_for(self._wake_up.wait(), min(later) - now if later else None)
                except TimeoutError:
                    pass
        except OSError:
            # The reader learns it too, and ends this life; what was under way is unknown then.
            pass

    def _attempt(self, outgoing: Outgoing) -> str:
        """Recorded before the frame leaves."""
        outgoing.attempts += 1
        outgoing.since = time.monotonic()
        self._place.tally.resent += outgoing.attempts > 1
        outgoing.op = self._place.recorder.invoke(
            group=outgoing.group,
            sender=self.user_id,
            client_msg_id=outgoing.client_msg_id,
            digest=digest("text", outgoing.body),
            conn=self.inbox.conn,
            attempt=outgoing.attempts,
        )
        number = next(self._requests)
        self._in_flight[number] = outgoing
        return json.dumps(
            {
                "id": number,
                "type": "message.send",
                "group_id": str(outgoing.group),
                "client_msg_id": outgoing.client_msg_id,
                "kind": "text",
                "body": outgoing.body,
            }
        )

    async def _ping(self, socket: Socket) -> None:
        try:
            while True:
                asked = time.monotonic()
                socket.send(PING)
                await asyncio.sleep(PING_S)
                if self._heard < asked:
                    # Rule 11 of the protocol. The messages it missed meanwhile are unseen, so this is no excuse.
                    log.error("%s heard nothing at %s for %.0f s: %s", self.name, self.node, PING_S, socket.describe())
                    socket.close()
        except OSError:
            pass

    async def _read(self, socket: Socket) -> None:
        while text := await socket.receive():
            self._heard = time.monotonic()
            try:
                frame = FRAME.decode(text)
            except msgspec.DecodeError:
                # Events about groups have fields of the same names and other types.
                continue
            if frame.type == "messages":
                self.inbox.on_messages(frame)
            elif frame.type in ("gap", "resync"):
                self.inbox.on_gap(frame)
            elif frame.type == "ok" and frame.id in self._resumes:
                self.inbox.on_resumed(self._resumes.pop(frame.id), frame.groups)
                self.online = True
            elif frame.type in ("ok", "error"):
                self._on_answer(frame)

    def _on_answer(self, frame: Frame) -> None:
        outgoing = None if frame.id is None else self._in_flight.pop(frame.id, None)
        if frame.id in self._resumes:
            self._place.tally.errors[f"resume {frame.code}"] += 1
            self._again(self._resumes.pop(frame.id))
        if outgoing is None:
            return
        recorder, tally = self._place.recorder, self._place.tally
        op, outgoing.op = outgoing.op, 0
        self._wake_up.set()
        if (took_s := time.monotonic() - outgoing.since) > ANSWER_S:
            tally.broken.append(f"{self.name} was answered {frame.code or frame.type} after {took_s:.1f} s")
        if frame.type == "ok":
            recorder.ok(op, frame.seq, frame.message_id)
            tally.acked += 1
            del self.outbox[outgoing.client_msg_id]
            return
        tally.errors[f"{frame.code}/{frame.outcome}"] += 1
        (recorder.fail if frame.outcome == "none" else recorder.info)(op, frame.code)
        if frame.code == "busy" and frame.retry_after_ms is None:
            tally.broken.append(f"{self.name} was told busy, and not until when")
        outgoing.not_before = time.monotonic() + (frame.retry_after_ms or 100) / 1000
        if frame.code not in REPEAT:
            tally.broken.append(f"{self.name} may not send: {frame.code} {frame.message}")
            del self.outbox[outgoing.client_msg_id]

    def _again(self, asked: dict[int, int]) -> None:
        """A resume that was refused is replaced by pulls."""
        for group in asked:
            self.inbox.want(group)
        self.online = True
