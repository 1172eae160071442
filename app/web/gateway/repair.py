"""Reads again what the gateway may have wrong: the members of stale groups, and everything after something was missed."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Protocol
from uuid import UUID

from app.delivery.interest import Hold
from app.metrics import Metrics
from app.modules.groups.models import MembersNow
from app.storage.retry import FAILED, Retries
from app.web.gateway.hub import Hub

GROUPS_PER_READ = 50
"""Up to 10,000 members each: a read stays short, and what waits for one group does not wait for 500 others."""
PAUSE_S = 0.01
"""After a read, so that a group whose members come and go all the time does not keep the process and the store busy."""
COMPARE_S = 1.0
"""Between two comparisons of everything: neither they nor the reads of single groups hold the other up."""
WAIT_MAX_S = 2.0
"""Between two tries while a store is away."""


class MembersSource(Protocol):
    """The groups' service, as far as a repair needs it."""

    async def members_among(self, group_ids: Sequence[int], user_ids: Sequence[int]) -> Mapping[int, MembersNow]:
        """For each group that exists: which of these users are members now, and its state in the same snapshot."""

    async def group_ids_of(self, user_ids: Sequence[int]) -> set[int]:
        """Every group one of these users is a member of."""


class SessionsSource(Protocol):
    """The sessions' service, as far as a repair needs it."""

    async def valid(self, sids: Sequence[UUID]) -> set[UUID]:
        """Those that are neither revoked nor expired."""


class Repairer:
    """Works off the hub's list; waits with backoff while the store is away, during which stale groups push nothing.

    While nothing arrives from above it compares everything every `cut_compare_s` seconds, a little earlier at random.
    """

    def __init__(
        self,
        hub: Hub,
        members: MembersSource,
        sessions: SessionsSource,
        hold: Hold,
        metrics: Metrics,
        *,
        cut_compare_s: float,
    ) -> None:
        self._cut_compare_s = cut_compare_s
        self._hub = hub
        self._members = members
        self._sessions = sessions
        self._hold = hold
        self._metrics = metrics

    async def run(self) -> None:
        """Repair until cancelled."""
        retries, compare_at, again_at = Retries("repair_waits_for_store", max_s=WAIT_MAX_S), 0.0, 0.0
        while True:
            await self._work(again_at)
            try:
                if self._hub.repair_cause is not None and monotonic() >= compare_at:
                    await self._compare_everything()
                    compare_at = monotonic() + COMPARE_S
                    again_at = monotonic() + self._cut_compare_s * random.uniform(0.8, 1.0)  # noqa: S311 - jitter
                if self._hub.stale:
                    await self._refresh(self._hub.take_stale(GROUPS_PER_READ))
                await asyncio.sleep(PAUSE_S)
            except FAILED as error:
                await retries.wait(error, stale_groups=len(self._hub.stale))
                continue
            retries.over()
            if not self._hub.stale and self._hub.repair_cause is None:
                self._hub.work.clear()

    async def _work(self, again_at: float) -> None:
        """Wait until there is some. While nothing arrives from above everything is to be compared `again_at` this time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, again_at - monotonic()) if self._hub.cut else None):
                await self._hub.work.wait()
        if self._hub.cut and monotonic() >= again_at:
            self._hub.request_repair("cut")

    async def _compare_everything(self) -> None:
        """Sessions first, then every group of a local user: notices of joining and leaving may be among what was missed."""
        cause, self._hub.repair_cause = self._hub.repair_cause, None
        try:
            sids = self._hub.local_sessions()
            if sids:
                self._hub.close_sessions(set(sids) - await self._sessions.valid(sids), "the session has ended")
            users = self._hub.local_users()
            if users:
                self._hub.mark_stale(await self._members.group_ids_of(users))
            self._hub.mark_stale(self._hub.local_groups())
        except FAILED:
            self._hub.repair_cause = cause
            raise
        if cause is not None:
            self._metrics.repairs.labels(cause).inc()

    async def _refresh(self, taken: Mapping[int, bool]) -> None:
        # Some may be new here. Before the read, so that what is committed after it comes here.
        await self._hold(taken)
        users = self._hub.local_users()
        try:
            found = await self._members.members_among(list(taken), users)
        except FAILED:
            self._hub.mark_stale(taken)
            raise
        asked = frozenset(users)
        for group_id, whole in taken.items():
            self._hub.refreshed(group_id, asked, found.get(group_id), whole=whole)
            # A group of thousands takes milliseconds: others may go between.
            await asyncio.sleep(0)
