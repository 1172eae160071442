"""Pulls what cursors miss: one `POST /sync` at a time for all groups that are due."""

import asyncio
import random
from collections.abc import Callable

from app.client.api import Api
from app.client.backoff import Waits
from app.client.errors import ClientError, SessionEnded
from app.client.events import EventQueue
from app.client.inbox import Inbox
from app.client.options import ClientOptions
from app.client.wire import Backoff
from app.errors import AppError, Unauthorized


class Agenda:
    """Which groups are due when; asking again never delays a group."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._due: dict[str, float] = {}
        self._changed = asyncio.Event()

    def want(self, group_id: str, within_ms: int) -> None:
        """Pull after a random part of `within_ms`."""
        due = asyncio.get_running_loop().time() + self._draw.random() * within_ms / 1000
        self._due[group_id] = min(due, self._due.get(group_id, due))
        self._changed.set()

    async def next(self, at_most: int) -> list[str]:
        """Wait until some group is due; all that are, oldest first."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            due = sorted((when, group_id) for group_id, when in self._due.items() if when <= now)[:at_most]
            if due:
                for _, group_id in due:
                    del self._due[group_id]
                return [group_id for _, group_id in due]
            self._changed.clear()
            timeout_s = min(self._due.values()) - now if self._due else None
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            except TimeoutError:
                continue


class Puller:
    """The task that pulls; it never gives up, and waits longer after each failure."""

    def __init__(
        self,
        api: Api,
        inbox: Inbox,
        queue: EventQueue,
        agenda: Agenda,
        options: ClientOptions,
        draw: random.Random,
        *,
        on_unknown: Callable[[], None],
    ) -> None:
        self._api = api
        self._inbox = inbox
        self._queue = queue
        self._agenda = agenda
        self._options = options
        self._on_unknown = on_unknown
        backoff = Backoff(options.busy_min_ms, options.busy_max_ms, options.backoff_jitter)
        self._waits = Waits(backoff, retry_after_max_s=options.retry_after_max_s, draw=draw)

    async def run(self) -> None:
        """Until cancelled. Raises SessionEnded when the credential is refused."""
        while True:
            group_ids = await self._agenda.next(self._options.pull_groups)
            await self._queue.wait_for_room()
            try:
                progress = await self._pull(group_ids)
            except Unauthorized as error:
                raise SessionEnded(error.status, error.message) from error
            except (AppError, ClientError) as error:
                progress = False
                wait_s = self._waits.next_s(error.retry_after_ms if isinstance(error, AppError) else None)
            else:
                wait_s = 0.0 if progress else self._waits.next_s()
            if progress:
                self._waits.reset()
            for group_id in group_ids:
                cursor = self._inbox.get(group_id)
                if cursor is not None and cursor.wants_pull:
                    self._agenda.want(group_id, 0)
            # One wait for all: what fails for one group is the server, not the group.
            await asyncio.sleep(wait_s)

    async def _pull(self, group_ids: list[str]) -> bool:
        """Ask once. True: some group moved on, or misses nothing now."""
        cursors = {group_id: self._inbox.get(group_id) for group_id in group_ids}
        pulls = {group_id: cursor.begin_pull() for group_id, cursor in cursors.items() if cursor is not None}
        if not pulls:
            return True
        answer = await self._api.sync(
            {group_id: pull.after for group_id, pull in pulls.items()}, self._options.pull_page
        )
        progress = False
        for group_id, pull in pulls.items():
            cursor = self._inbox.get(group_id)
            delta = answer.groups.get(group_id)
            if cursor is None or cursor is not cursors[group_id]:
                progress = True
            elif delta is None:
                self._inbox.drop(group_id)
                self._on_unknown()
                progress = True
            else:
                self._inbox.on_pulled(group_id, pull, delta)
                progress |= not cursor.wants_pull or cursor.have > pull.after
        return progress
