"""The hot caches in Redis against what the store encodes."""

import itertools
from collections.abc import Sequence

from app.doctor.base import Check, Finding, Looked, Source
from app.modules.messages.hot import HotCache
from app.modules.messages.repository import MessageRepository

GROUPS_AT_ONCE = 20
"""100 messages of 2,000 code points each at worst: 20 MB."""


class HotCaches(Check):
    """A reader is answered from here when it is complete; so it must be what PostgreSQL holds."""

    name = "hot_caches"
    title = "hot caches hold what is stored: no hole, the same bytes, nothing beyond the head"
    unit = "messages"
    advice = "Readers may be shown another message than the one that is stored. Somebody wrote to Redis, or one Redis serves two databases."
    mends = "forget the cache of the group; it fills again"

    def __init__(self, source: Source, hot: HotCache, messages: MessageRepository) -> None:
        super().__init__(source)
        self._hot = hot
        self._messages = messages
        self._looked_at = 0

    async def look(self, groups: Sequence[int]) -> Looked:
        """Looked at again: a failover that lost messages has their numbers given anew, and the new ones are cached a moment later."""
        self._looked_at = 0
        found = await self._compare(groups)
        looked_at = self._looked_at
        return Looked(looked_at, await self._source.settled(found, self._compare))

    async def mend(self, findings: Sequence[Finding]) -> None:
        """A batch that writes meanwhile begins a new cache."""
        await self._hot.drop(sorted({finding.subject for finding in findings}))

    async def _compare(self, groups: Sequence[int]) -> list[Finding]:
        findings = []
        for start in range(0, len(groups), GROUPS_AT_ONCE):
            findings += await self._compare_some(groups[start : start + GROUPS_AT_ONCE])
        return findings

    async def _compare_some(self, groups: Sequence[int]) -> list[Finding]:
        # The cache first: what is in it was committed before, so PostgreSQL, asked later, must know it.
        cached = {group: pairs for group, pairs in (await self._hot.contents(groups)).items() if pairs != []}
        ranges = {
            group: (int(pairs[0][0]), int(pairs[-1][0]))
            for group, pairs in cached.items()
            if pairs and _is_whole(pairs)
        }
        # A score far off must not bring a whole history here.
        ranges = {g: (last - len(cached[g] or ()) + 1, last) for g, (_, last) in ranges.items()}
        stored = await self._messages.items_between(ranges) if ranges else {}
        heads = await self._heads(list(cached))
        findings = []
        for group, pairs in cached.items():
            self._looked_at += len(pairs or ())
            wrong = _wrong(pairs, heads.get(group, 0), stored.get(group, []))
            if wrong:
                findings.append(Finding(group, f"group {group}: {wrong}"))
        return findings

    async def _heads(self, groups: Sequence[int]) -> dict[int, int]:
        rows = await self._source.rows(
            "SELECT group_id, last_seq FROM group_seq WHERE group_id = ANY($1::bigint[])", groups
        )
        return {row[0]: row[1] for row in rows}


def _is_whole(pairs: Sequence[tuple[float, bytes]]) -> bool:
    return all(score.is_integer() and 0 < score < 2**53 for score, _ in pairs)


def _wrong(pairs: Sequence[tuple[float, bytes]] | None, head: int, stored: Sequence[bytes]) -> str:
    """The first thing that is wrong with a cache; empty: nothing."""
    if pairs is None:
        return "the key is not a sorted set"
    if not _is_whole(pairs):
        return "a score that is no number of a message"
    seqs = [int(score) for score, _ in pairs]
    for before, after in itertools.pairwise(seqs):
        if before == after:
            return f"message {before} twice"
        if before + 1 != after:
            return f"{before + 1} to {after - 1} missing between others"
    if seqs[-1] > head:
        return f"message {seqs[-1]} beyond the head {head}"
    for seq, (_, item), true in zip(seqs, pairs, stored, strict=False):
        if item != true:
            return f"message {seq} is not what is stored"
    return "" if len(stored) == len(pairs) else "more messages than are stored"
