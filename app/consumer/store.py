"""One batch into PostgreSQL: fold repeats, number, insert, all in one transaction. See docs/architecture.md, "One batch"."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from app.errors import AppError, Busy, Conflict, NotFound, Rejected
from app.lifecycle import CrashPoint
from app.metrics import Metrics
from app.modules.messages.models import Key, Send, StoredMessage, to_stored
from app.modules.messages.repository import MessageRepository, Row
from app.storage.postgres import Connection, Postgres

AGAIN_MS = 100

Head = tuple[int, int]
"""(last_seq, access_version) of a group."""


class Stamper(Protocol):
    """Message ids."""

    def stamp(self, n: int) -> list[int]:
        """`n` rising Snowflake ids."""

    def timestamp_ms(self, snowflake: int) -> int:
        """When an id was stamped, in ms since 1970."""


class Groups(Protocol):
    """What a batch needs from the groups, inside its transaction."""

    async def lock_seqs(self, connection: Connection, group_ids: Sequence[int]) -> dict[int, Head]:
        """Lock the narrow rows in rising id; unknown groups are absent."""

    async def check_senders(
        self, connection: Connection, pairs: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], AppError | None]:
        """(group_id, user_id) → None when the user may post now, else why not."""

    async def move_seqs(self, connection: Connection, last_seqs: Mapping[int, int]) -> None:
        """Set the new heads."""


class Gate(Protocol):
    """Lets a batch commit, or not; the consumer's is its Fence."""

    async def advance(self, connection: Connection, positions: Mapping[int, int]) -> None:
        """First in the batch's transaction; `positions` are the last offsets of its partitions. What this raises ends the batch."""


class Numbers(Protocol):
    """Proposes numbers; the consumer's is its Proposer."""

    async def propose(self, counts: Mapping[int, int]) -> dict[int, int]:
        """The last number proposed for each group; groups may be left out."""


class WordFilter(Protocol):
    """The word filter's verdict."""

    def filtered(self, body: str) -> str | None:
        """The body as it may be stored (masked or unchanged), None to reject."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one send: a stored message, or an error. `repeat`: it had been stored or folded before."""

    send: Send
    stored: StoredMessage | None = None
    error: AppError | None = None
    repeat: bool = False


@dataclass(frozen=True, slots=True)
class Committed:
    """The result of a batch: outcomes in log order, heads of its groups, and what Redis had proposed."""

    outcomes: list[Outcome]
    heads: dict[int, Head]
    proposed: dict[int, int]


class BatchStore:
    """Stores batches. Raises Busy or redis errors when a store is away (nothing is known to be stored), StaleOwner when fenced off."""

    def __init__(
        self,
        postgres: Postgres,
        messages: MessageRepository,
        groups: Groups,
        proposer: Numbers,
        words: WordFilter,
        ids: Stamper,
        fence: Gate,
        crash: CrashPoint,
        metrics: Metrics,
    ) -> None:
        self._postgres = postgres
        self._messages = messages
        self._groups = groups
        self._proposer = proposer
        self._words = words
        self._ids = ids
        self._fence = fence
        self._crash = crash
        self._metrics = metrics

    async def store(self, sends: Sequence[Send], positions: Mapping[int, int]) -> Committed:
        """Commit what may be stored of `sends`, which are in log order; `positions` are the last offsets of their partitions."""
        first: dict[Key, Send] = {}
        # A send that is judged already only looks for its message; a fresh one of the same key is what gets decided about.
        for send in sorted(sends, key=attrgetter("judged")):
            first.setdefault(send.key, send)
        refused: dict[Key, AppError] = {key: _again() for key, send in first.items() if send.judged}
        bodies = {key: body for key, send in first.items() if (body := self._words.filtered(send.body)) is not None}
        with self._metrics.stage("propose"):
            proposed = await self._proposer.propose(Counter(key[0] for key in bodies))

        with self._metrics.stage("commit"):
            async with self._postgres.transaction() as connection:
                await self._fence.advance(connection, positions)
                heads = await self._groups.lock_seqs(connection, sorted({key[0] for key in first}))
                # A statement of its own after the locks: only now does its snapshot hold what a previous owner committed.
                known = await self._messages.find_repeats(connection, list(first))
                candidates = [send for key, send in first.items() if key not in known and key not in refused]
                candidates = await self._permitted(connection, candidates, heads, refused)
                candidates = _clean(candidates, bodies, refused)
                new, last_seqs = self._number(candidates, bodies, heads)
                if new:
                    await self._messages.insert(connection, _rows(candidates, new, bodies))
                    await self._groups.move_seqs(connection, last_seqs)
                self._crash("before_commit")
        heads |= {group: (last_seq, heads[group][1]) for group, last_seq in last_seqs.items()}
        self._metrics.messages_stored.inc(len(new))
        stored = known | {message.key: message for message in new}
        return Committed([_outcome(send, first, stored, known, refused) for send in sends], heads, proposed)

    async def _permitted(
        self,
        connection: Connection,
        candidates: list[Send],
        heads: Mapping[int, Head],
        refused: dict[Key, AppError],
    ) -> list[Send]:
        if not candidates:
            return []
        pairs = list({(send.key[0], send.key[1]): None for send in candidates})
        verdicts = await self._groups.check_senders(connection, pairs)
        permitted = []
        for send in candidates:
            error = verdicts[send.key[0], send.key[1]]
            if error is None and send.key[0] not in heads:
                error = NotFound("no such group")
            if error is None:
                permitted.append(send)
            else:
                refused[send.key] = error
        return permitted

    def _number(
        self,
        candidates: Sequence[Send],
        bodies: Mapping[Key, str],
        heads: Mapping[int, Head],
    ) -> tuple[list[StoredMessage], dict[int, int]]:
        """Numbers in log order, from the locked head.

        A proposal counts only if it follows the head, and then both give the same number. So the head is used for both; the proposal
        tells afterwards whether Redis has to be put right.
        """
        last_seqs: dict[int, int] = {}
        stored = []
        for send, message_id in zip(candidates, self._ids.stamp(len(candidates)), strict=True):
            group_id = send.key[0]
            seq = last_seqs.get(group_id, heads[group_id][0]) + 1
            last_seqs[group_id] = seq
            ts = self._ids.timestamp_ms(message_id)
            stored.append(to_stored(send.key, seq, message_id, ts, send.kind, bodies[send.key], send.content_hash))
        return stored, last_seqs


def _again() -> Busy:
    """A record came again after a crash and is not stored: it was refused. Its sender may know that, so it is not judged anew."""
    message = "the server was interrupted while it answered this; send it again"
    # Unknown, because it may also have been put aside as a dead letter, which an operator can replay.
    return Busy(message, retry_after_ms=AGAIN_MS, outcome="unknown")


def _clean(candidates: Iterable[Send], bodies: Mapping[Key, str], refused: dict[Key, AppError]) -> list[Send]:
    """Those the word filter lets through; said to members only."""
    clean = []
    for send in candidates:
        if send.key in bodies:
            clean.append(send)
        else:
            refused[send.key] = Rejected("the message contains a word that is not allowed here")
    return clean


def _rows(sends: Sequence[Send], stored: Sequence[StoredMessage], bodies: Mapping[Key, str]) -> list[Row]:
    return [
        (m.key[0], m.seq, m.message_id, m.key[1], m.key[2], s.kind, bodies[m.key], m.content_hash, m.ts)
        for s, m in zip(sends, stored, strict=True)
    ]


def _outcome(
    send: Send,
    first: Mapping[Key, Send],
    stored: Mapping[Key, StoredMessage],
    known: Mapping[Key, StoredMessage],
    refused: Mapping[Key, AppError],
) -> Outcome:
    message = stored.get(send.key)
    if message is not None:
        if message.content_hash != send.content_hash:
            return Outcome(send, error=Conflict("this client_msg_id was used for another message"))
        return Outcome(send, stored=message, repeat=send.key in known or first[send.key] is not send)
    if first[send.key].content_hash != send.content_hash:
        return Outcome(send, error=Conflict("this client_msg_id was used for another message"))
    return Outcome(send, error=refused[send.key], repeat=first[send.key] is not send)
