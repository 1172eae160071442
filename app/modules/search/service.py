"""Finding messages in the caller's groups, newest first. See docs/architecture.md, "Search"."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.modules.search.folding import fold
from app.modules.search.models import Block, Found, Query, Results, Text, parse_query
from app.modules.search.repository import SearchRepository, Stored
from app.modules.search.signatures import Flags, positions
from app.modules.search.snippet import Snippets
from app.modules.search.turns import Breaths, Turns
from app.protocol.fields import MAX_INT64


class OneGroup(Protocol):
    """The way to a group: only for members."""

    async def access_group(self, user_id: int, group_id: int) -> object:
        """Raises NotFound for outsiders and ex-members."""


class InGroup(Protocol):
    """A membership."""

    @property
    def group_id(self) -> int:
        """Of which group."""


class AllGroups(Protocol):
    """Who is in which groups."""

    async def memberships(self, user_ids: Sequence[int]) -> Mapping[int, Sequence[InGroup]]:
        """The groups of each of these users."""


@dataclass(frozen=True, slots=True)
class SearchBounds:
    """Settings of searching; see config/default.toml."""

    query_code_points: int
    query_parts: int
    page_max: int
    snippet_code_points: int
    highlights_max: int
    tail_max: int
    looked_max: int
    blocks_max: int
    blocks_first: int
    blocks_at_once: int
    at_once: int
    waiting_max: int
    waiting_per_user: int


class SearchService:
    """Answers exactly: what the index does not know yet is read from the messages themselves."""

    def __init__(self, repository: SearchRepository, group: OneGroup, groups: AllGroups, bounds: SearchBounds) -> None:
        self._repository = repository
        self._group = group
        self._groups = groups
        self._bounds = bounds
        self._turns = Turns(bounds.at_once, bounds.waiting_max, bounds.waiting_per_user)

    async def search(self, user_id: int, q: str, group_id: int | None, before: int | None, limit: int) -> Results:
        """At most `limit` messages with ids below `before`, fewer where too many had to be looked at.

        Raises BadRequest, NotFound (not in `group_id`), RateLimited, Busy.
        """
        bounds = self._bounds
        query = parse_query(q, max_code_points=bounds.query_code_points, max_parts=bounds.query_parts)
        async with self._turns.of(user_id):
            # Not before: who is put out of a group while they wait must not find what was said since.
            group_ids = await self._searchable(user_id, group_id)
            if not group_ids:
                return Results([], None)
            return await self._find(query, group_ids, before or MAX_INT64, min(limit, bounds.page_max))

    async def _searchable(self, user_id: int, group_id: int | None) -> list[int]:
        if group_id is None:
            return [each.group_id for each in (await self._groups.memberships([user_id]))[user_id]]
        await self._group.access_group(user_id, group_id)
        return [group_id]

    async def _find(self, query: Query, group_ids: list[int], before: int, limit: int) -> Results:
        bounds, repository = self._bounds, self._repository
        snippets = Snippets(query.parts, code_points=bounds.snippet_code_points, highlights_max=bounds.highlights_max)
        hits = _Hits(snippets)
        # Of one moment: what is not indexed, and what is. In between a message might change its side, and blocks grow.
        async with repository.snapshot() as connection:
            tail = await repository.not_indexed(connection, group_ids, before, bounds.tail_max)
            blocks = await repository.blocks(connection, group_ids, before, *_signature(query), bounds.blocks_max)
        await hits.look(tail)
        # Nothing from there on was left out.
        floor = tail[-1].message_id if len(tail) == bounds.tail_max else 0
        floor = await self._indexed(blocks, before, limit, hits, floor)
        ids = sorted((message_id for message_id in hits.found if message_id >= floor), reverse=True)
        page = ids[:limit]
        items = []
        for stored in await repository.messages([hits.found[message_id] for message_id in page]) if page else ():
            items.append(_found(stored, snippets))
            await hits.breaths.take()
        return Results(items, page[-1] if len(ids) > limit else floor or None)

    async def _indexed(self, blocks: list[Block], before: int, limit: int, hits: "_Hits", floor: int) -> int:
        """Look through these blocks, newest first, until there are more than `limit` hits, none of older blocks among them.

        Returns the new `floor`: no hit with that id or a higher one was left out. It is below `before`, and 0 at the end.
        """
        bounds = self._bounds
        at, size, looked = 0, bounds.blocks_first, 0
        while at < len(blocks):
            following = blocks[at].last_id
            if following < floor or hits.newest(limit + 1) > following:
                return floor
            if looked >= bounds.looked_max:
                return following + 1
            some = blocks[at : at + size]
            texts = await self._repository.texts(some, before)
            await hits.look(texts)
            # One block of each group may reach beyond `before`. They are of every page, so each must get further than that.
            if some[0].last_id < before:
                looked += len(texts)
            at, size = at + size, min(2 * size, bounds.blocks_at_once)
        return max(floor, _unseen(blocks, before, bounds.blocks_max))


class _Hits:
    """Messages that match, by id."""

    def __init__(self, snippets: Snippets) -> None:
        self._snippets = snippets
        self.found: dict[int, Text] = {}
        self.breaths = Breaths()

    async def look(self, texts: Sequence[Text]) -> None:
        """Keep those that match."""
        for text in texts:
            if self._snippets.matches(fold(text.body)):
                self.found[text.message_id] = text
            await self.breaths.take()

    def newest(self, number: int) -> int:
        """The id of the hit of this number, counted from the newest; 0 if there are fewer."""
        return heapq.nlargest(number, self.found)[-1] if len(self.found) >= number else 0


def _signature(query: Query) -> tuple[bytes, list[int]]:
    """Of what every hit has, and four bits of it. The longest words are the rarest, so these four tell most."""
    where = [position for word in sorted(query.words, key=len, reverse=True) for position in positions(word)]
    return Flags(where).packed(), (where * 4)[:4]


def _unseen(blocks: Sequence[Block], before: int, most: int) -> int:
    """The id below which there may be more blocks than these; 0: these are all."""
    return blocks[-1].last_id if sum(block.last_id < before for block in blocks) == most else 0


def _found(stored: Stored, snippets: Snippets) -> Found:
    snippet, highlights = snippets.cut(stored.body)
    return Found(stored.item, snippet, highlights)
