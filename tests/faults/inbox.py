"""The way down of one member: cursors, packets kept aside, pulls."""

import asyncio
import random
import time

import aiohttp
import msgspec

from bench.wire import Message, shown
from tests.faults.tally import Place
from tests.faults.wire import SYNCED, Cursor, Frame

RETRY_S = 0.3
PAGE = 100


class Inbox:
    """`have`: group → the highest seq below which nothing is missing. Everything that arrives is recorded."""

    def __init__(self, name: str, token: str, groups: list[int], place: Place, chance: random.Random) -> None:
        self.name = name
        self.have = dict.fromkeys(groups, 0)
        self.conn = ""
        self._headers = {"Authorization": f"Bearer {token}"}
        self._place = place
        self._chance = chance
        self._aside: dict[int, list[Frame]] = {group: [] for group in groups}
        self._wanted: dict[int, float] = {}
        """Group → when to pull it."""
        self._wake_up = asyncio.Event()

    def on_messages(self, frame: Frame) -> None:
        """A packet: taken, or kept aside while something before it is missing."""
        group = frame.group_id
        if group not in self.have:
            self._place.tally.broken.append(f"{self.name} got messages of group {group}, of which it is no member")
            return
        self._seen(group, frame.items, pulled=False)
        if frame.prev_seq > self.have[group]:
            self._aside[group].append(frame)
            self._want(group, 0)
        else:
            self._take(group, frame.items)

    def on_gap(self, frame: Frame) -> None:
        """Only a pull closes it."""
        self._place.tally.gaps += 1
        if frame.to_seq is None or frame.to_seq > self.have[frame.group_id]:
            self._want(frame.group_id, frame.pull_within_ms / 1000)

    def on_resumed(self, asked: dict[int, int], groups: dict[int, Cursor]) -> None:
        """The answer to `resume`."""
        for group, cursor in groups.items():
            if cursor.state == "reset" or cursor.last_seq < asked[group]:
                self._place.tally.broken.append(f"{self.name} resumed {group} at {asked[group]} and got {cursor}")
            elif cursor.state == "behind":
                self._want(group, 0)
            else:
                self._on_delta(group, asked[group], cursor)

    def want(self, group: int) -> None:
        """Pull a group now."""
        self._want(group, 0)

    async def pull_forever(self) -> None:
        """Pull what is wanted when it is due; what fails is tried again."""
        while True:
            now = time.monotonic()
            due = [group for group, at in self._wanted.items() if at <= now]
            if due:
                for group in due:
                    del self._wanted[group]
                if not await self._pull({group: self.have[group] for group in due}):
                    for group in due:
                        self._want(group, RETRY_S)
                continue
            self._wake_up.clear()
            wait_s = min(self._wanted.values()) - now if self._wanted else None
            try:
                await asyncio.wait_for(self._wake_up.wait(), wait_s)
            except TimeoutError:
                pass

    async def head(self, group: int) -> int:
        """The group's last seq, as far as the server says so now."""
        cursor = (await self._sync({group: self.have[group]}) or {}).get(group)
        return cursor.last_seq if cursor else 0

    async def history(self, group: int) -> tuple[msgspec.Raw, int] | None:
        """The whole group as a recorder wants it, and its last seq; None when the server did not answer now."""
        items: list[Message] = []
        while True:
            cursor = (await self._sync({group: items[-1].seq if items else 0}) or {}).get(group)
            if cursor is None:
                return None
            items += cursor.items
            if not cursor.has_more:
                return shown(items), cursor.last_seq

    async def _pull(self, asked: dict[int, int]) -> bool:
        groups = await self._sync(asked)
        if groups is None:
            return False
        for group, have in asked.items():
            if group not in groups:
                self._place.tally.broken.append(f"{self.name} asked for {group} and is no member any more")
                continue
            self._on_delta(group, have, groups[group])
        return True

    async def _sync(self, asked: dict[int, int]) -> dict[int, Cursor] | None:
        body = {"groups": {str(group): {"seq": seq} for group, seq in asked.items()}, "limit": PAGE}
        try:
            async with self._place.http.post(
                f"{self._place.url}/api/v1/sync", json=body, headers=self._headers
            ) as answer:
                if answer.status == 200:
                    return SYNCED.decode(await answer.read()).groups
                if answer.status < 500:
                    self._place.tally.broken.append(f"{self.name} pulled and got {answer.status}")
        except (aiohttp.ClientError, TimeoutError):
            pass
        return None

    def _on_delta(self, group: int, asked: int, cursor: Cursor) -> None:
        """Items that must follow `asked` without a hole."""
        seqs = [item.seq for item in cursor.items]
        if cursor.last_seq < asked or seqs != list(range(asked + 1, asked + 1 + len(seqs))):
            self._place.tally.broken.append(f"{self.name} asked {group} after {asked}, got {seqs} of {cursor.last_seq}")
            return
        if seqs:
            self._seen(group, cursor.items, pulled=True)
            self._take(group, cursor.items)
        if self.have[group] < cursor.last_seq:
            self._want(group, 0)

    def _take(self, group: int, items: list[Message]) -> None:
        self.have[group] = max(self.have[group], items[-1].seq)
        aside = self._aside[group]
        while aside and (index := next((i for i, f in enumerate(aside) if f.prev_seq <= self.have[group]), -1)) >= 0:
            self.have[group] = max(self.have[group], aside.pop(index).items[-1].seq)
        if aside:
            self._want(group, 0)

    def _want(self, group: int, within_s: float) -> None:
        at = time.monotonic() + self._chance.random() * within_s
        self._wanted[group] = min(at, self._wanted.get(group, at))
        self._wake_up.set()

    def _seen(self, group: int, items: list[Message], *, pulled: bool) -> None:
        self._place.recorder.seen(
            client=self.name, conn=self.conn, group=group, items=shown(items), via="pull" if pulled else "push"
        )
