"""Stores a dead letter after all: through the consumer's own store, in the process of a command, beside any broker.

The send is decided about like any other: its key may be stored meanwhile (a repeat), its sender may have left, the word filter is asked.
The locked `group_seq` row orders it against the batches of the consumers. The row of the dead letter stands in for the fence: it is locked
in the same transaction, so two operators store it once, and it goes only when its message is known to be stored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import asyncpg

from app.consumer.dead_letter_table import DeadLetterTable
from app.consumer.proposer import Proposer
from app.consumer.store import BatchStore, Gate, Numbers, Outcome
from app.errors import AppError
from app.modules.messages.hot import HotCache
from app.modules.messages.models import Send, StoredMessage, from_envelope
from app.storage.postgres import Connection
from app.storage.redis import ERRORS

Result = Literal["stored", "repeat", "refused", "failed", "broken", "taken"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of a dead letter.

    `stored`, `repeat` (it was stored before): the dead letter is gone. `refused` (by permission, filter or conflict), `failed` (it cannot
    be stored, again), `broken` (no envelope): it is still there. `taken`: it is gone, or in the hands of another operator.
    """

    result: Result
    why: str = ""
    group_id: int = 0
    seq: int = 0


class Replayer:
    """One dead letter at a time."""

    def __init__(
        self,
        table: DeadLetterTable,
        store: Callable[[Gate, Numbers], BatchStore],
        hot: HotCache,
        proposer: Proposer,
    ) -> None:
        self._table = table
        self._store = store
        self._hot = hot
        self._proposer = proposer

    async def replay(self, letter_id: int) -> Replayed:
        """Store one. Raises Busy when PostgreSQL is away or no id can be stamped: the dead letter is still there, do it again."""
        letter = await self._table.find(letter_id)
        if letter is None:
            return Replayed("taken", "there is no such dead letter")
        try:
            send = from_envelope(letter.envelope)
        except ValueError as error:
            return Replayed("broken", str(error))
        try:
            outcome = await self._decide(send, letter_id)
        except _Taken:
            return Replayed("taken", "another operator is at it, or it is gone")
        except AppError:
            raise
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            # Only the kind of failure: the message of a driver may quote the text.
            return Replayed("failed", type(error).__name__, send.key[0])
        if outcome.stored is None:
            refusal = outcome.error
            return Replayed("refused", f"{refusal.code}: {refusal.message}" if refusal else "", send.key[0])
        await self._remember(outcome.stored)
        group_id, sender_id, _ = send.key
        await self._table.remove_replayed(letter_id, group_id, sender_id, outcome.stored.seq)
        return Replayed("repeat" if outcome.repeat else "stored", "", group_id, outcome.stored.seq)

    async def _decide(self, send: Send, letter_id: int) -> Outcome:
        store = self._store(_Claim(self._table, letter_id, send.key[0]), _NoProposals())
        return (await store.store([send], {})).outcomes[0]

    async def _remember(self, stored: StoredMessage) -> None:
        """Redis as the consumer would leave it. Without it both are only less useful, and put right by the next message."""
        group_id = stored.key[0]
        try:
            await self._proposer.raise_to({group_id: stored.seq})
            await self._hot.store({group_id: [(stored.seq, stored.item)]})
        except ERRORS:
            return


class _Taken(Exception):
    """The row is not there or not free."""


class _Claim:
    """Instead of the fence: the row of the dead letter, held until the commit."""

    def __init__(self, table: DeadLetterTable, letter_id: int, group_id: int) -> None:
        self._table = table
        self._letter_id = letter_id
        self._group_id = group_id

    async def advance(self, connection: Connection, positions: Mapping[int, int]) -> None:
        """Raises _Taken."""
        if not await self._table.claim(connection, self._letter_id, self._group_id):
            raise _Taken


class _NoProposals:
    """Numbers come from the locked head; the consumer alone moves the counter ahead of it, so that corrections cannot cross."""

    async def propose(self, counts: Mapping[int, int]) -> dict[int, int]:
        """None."""
        return {}
