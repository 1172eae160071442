"""The contract of a check, and where checks read.

**Live data.** A check must give no false alarm while writers are at work. What one statement says is one snapshot; where two are compared,
they run in one REPEATABLE READ transaction, or what looks wrong is looked at again until it has stood still (`settled`).
**Bounds.** Checks work on a chunk of groups at a time, in SQL over sets; what they bring into memory is bounded by the chunk.
**Mending** must be safe beside running servers: it locks what writers lock and compares before it sets. It never deletes or renumbers
messages.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import ClassVar, TypeAlias

import asyncpg

from app.storage.postgres import Connection, Postgres

Rows: TypeAlias = "list[asyncpg.Record]"

LOOKS = 4
"""How often something is looked at again before it counts as standing still."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one thing: `subject` is its id, `what` a line for people, without message text."""

    subject: int
    what: str
    count: int = 1
    seen: str = ""
    """What mending compares with, where it does."""


@dataclass(frozen=True, slots=True)
class Looked:
    """How many things were looked at, and those that are wrong. `note`: what an operator should know though nothing is wrong."""

    looked_at: int
    findings: list[Finding] = field(default_factory=list)
    note: str = ""


class Check(ABC):
    """One question about the data."""

    name: ClassVar[str]
    title: ClassVar[str]
    """What holds when nothing is wrong."""
    unit: ClassVar[str]
    advice: ClassVar[str]
    """What a finding means and what to do."""
    mends: ClassVar[str] = ""
    """What `mend` does; empty: it cannot be mended by a program."""
    by_group: ClassVar[bool] = True
    """Asked for each chunk of groups; otherwise once, with no groups."""

    def __init__(self, source: "Source") -> None:
        self._source = source

    @abstractmethod
    async def look(self, groups: Sequence[int]) -> Looked:
        """Look at these groups. Raises Busy when PostgreSQL is away or too slow, redis errors when Redis is."""

    async def mend(self, findings: Sequence[Finding]) -> None:
        """Mend these findings of one `look`, where `mends` says how. Raises as `look`."""
        raise AssertionError(f"{self.name} cannot mend {len(findings)} findings")


class Source:
    """PostgreSQL within time limits, and the patience of the doctor."""

    def __init__(self, postgres: Postgres, *, statement_s: float, lock_s: float, settle_s: float) -> None:
        self._postgres = postgres
        self._statement_ms = round(statement_s * 1000)
        self._lock_ms = round(lock_s * 1000)
        self._settle_s = settle_s

    async def rows(self, sql: str, *arguments: object) -> Rows:
        """All rows of one statement, which cannot change anything."""
        async with self._reading("READ COMMITTED") as connection:
            return await connection.fetch(sql, *arguments)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Several statements about the same moment, which cannot change anything. For short stretches: it holds back VACUUM."""
        async with self._reading("REPEATABLE READ") as connection:
            yield connection

    @asynccontextmanager
    async def _reading(self, isolation: str) -> AsyncIterator[Connection]:
        async with self._postgres.transaction() as connection:
            await connection.execute(
                f"SET TRANSACTION ISOLATION LEVEL {isolation}, READ ONLY; SET LOCAL statement_timeout = {self._statement_ms}"
            )
            yield connection

    @asynccontextmanager
    async def change(self) -> AsyncIterator[Connection]:
        """A READ COMMITTED transaction that waits for locks, and holds up writers, for a bounded time only."""
        async with self._postgres.transaction() as connection:
            await connection.execute(
                f"SET LOCAL lock_timeout = {self._lock_ms}; SET LOCAL statement_timeout = {self._statement_ms}"
            )
            yield connection

    async def settled(
        self, found: Sequence[Finding], again: Callable[[Sequence[int]], Awaitable[Sequence[Finding]]]
    ) -> list[Finding]:
        """Those of `found` that are there, word for word, whenever one looks `again` within the patience. Others are work in progress."""
        still = list(found)
        until = monotonic() + self._settle_s
        while still and monotonic() < until:
            await asyncio.sleep(self._settle_s / LOOKS)
            now = {(f.subject, f.what) for f in await again(sorted({f.subject for f in still}))}
            still = [f for f in still if (f.subject, f.what) in now]
        return still
