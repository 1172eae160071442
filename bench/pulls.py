"""Reading by HTTP: what a gap left out, and whole histories at the end."""

import asyncio
import random
import time
from collections import Counter

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from bench.client import Client
from bench.history import Recorder
from bench.plan import WorkerPlan
from bench.wire import Message, shown

CONNECTIONS_MAX = 32
TRIES_MAX = 8
TIMEOUT_S = 15.0
PAGE = 100
"""Items asked for at once: the most the API allows."""
MAX_WAIT_S = 10.0
RETRY_S = 0.5
QUEUE_MAX = 100_000


class PullFailed(Exception):
    """The server did not answer a pull, however often it was asked."""


class _Delta(msgspec.Struct):
    items: list[Message]
    last_seq: int
    has_more: bool


class _Sync(msgspec.Struct):
    groups: dict[str, _Delta]


class Puller:
    """`POST /sync` for many users; use as an async context manager. At most `CONNECTIONS_MAX` calls at a time."""

    def __init__(self, api_url: str, seed: int) -> None:
        self._url = f"{api_url}/sync"
        self._chance = random.Random(seed)
        self._session: ClientSession | None = None
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures: Counter[str] = Counter()
        """By reason."""

    async def __aenter__(self) -> "Puller":
        """Ready to pull."""
        self._session = ClientSession(
            connector=TCPConnector(limit=CONNECTIONS_MAX), timeout=ClientTimeout(total=TIMEOUT_S)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give up what is still under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session:
            await self._session.close()

    def pull(self, client: Client, group: int, within_ms: int) -> None:
        """Bring a client's cursor up to date, after a random part of `within_ms`."""
        if len(self._tasks) >= QUEUE_MAX:
            self.failures["too many at once"] += 1
            return
        task = asyncio.create_task(self._pull(client, group, self._chance.random() * within_ms / 1000))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pull(self, client: Client, group: int, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            while True:
                delta = await self._sync(client.member.token, group, client.have[group])
                if client.take_pulled(group, delta.items, delta.last_seq, time.monotonic_ns()):
                    return
                if not delta.items:
                    raise PullFailed("the answer lacks messages that it says there are")
        except PullFailed as error:
            self.failures[str(error)] += 1
            client.kept.pop(group, None)

    async def read_histories(self, plan: WorkerPlan, recorder: Recorder) -> None:
        """Let up to `readers_max` of this worker's members of each group read all of it, and record that."""
        readers: dict[int, list[tuple[int, str]]] = {}
        for member in plan.members:
            for group in member.groups:
                chosen = readers.setdefault(group, [])
                if len(chosen) < plan.readers_max:
                    chosen.append((member.user_id, member.token))
        await asyncio.gather(
            *(
                self._read(recorder, user_id, token, group)
                for group, chosen in readers.items()
                for user_id, token in chosen
            )
        )

    async def _read(self, recorder: Recorder, user_id: int, token: str, group: int) -> None:
        async with self._slots:
            began = recorder.now()
            messages: list[Message] = []
            try:
                while True:
                    delta = await self._sync(token, group, messages[-1].seq if messages else 0)
                    messages += delta.items
                    if not delta.has_more or not delta.items:
                        break
            except PullFailed as error:
                self.failures[str(error)] += 1
                return
            recorder.final_history(member=user_id, group=group, items=shown(messages), began=began)

    async def _sync(self, token: str, group: int, seq: int) -> _Delta:
        if self._session is None:
            raise PullFailed("not started")
        body = {"groups": {str(group): {"seq": seq}}, "limit": PAGE}
        for _ in range(TRIES_MAX):
            wait = RETRY_S
            try:
                async with self._session.post(
                    self._url, json=body, headers={"Authorization": f"Bearer {token}"}
                ) as answer:
                    text = await answer.read()
                    if answer.status == 200:
                        return msgspec.json.decode(text, type=_Sync).groups[str(group)]
                    if answer.status not in (429, 503):
                        raise PullFailed(f"HTTP {answer.status}")
                    wait = min(float(answer.headers.get("Retry-After", RETRY_S)), MAX_WAIT_S)
            except (ClientError, TimeoutError):
                pass
            await asyncio.sleep(wait)
        raise PullFailed("no answer")
