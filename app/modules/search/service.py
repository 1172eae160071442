"""Finding messages in the caller's groups, newest first. See docs/architecture.md, "Search"."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.modules.search.folding import fold
from app.modules.search.models import Found, Hit, Query, Results, parse_query
from app.modules.search.repository import SearchRepository, Stored
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
    filter_code_points: int
    page_max: int
    snippet_code_points: int
    highlights_max: int
    tail_max: int
    newest_max: int
    newest_per_group_min: int
    dense_one_in: int
    slice_growth: int
    slices_max: int
    at_once: int
    waiting_max: int


class SearchService:
    """Answers exactly: what the index does not know yet is read from the messages themselves."""

    def __init__(self, repository: SearchRepository, group: OneGroup, groups: AllGroups, bounds: SearchBounds) -> None:
        self._repository = repository
        self._group = group
        self._groups = groups
        self._bounds = bounds
        self._turns = Turns(bounds.at_once, bounds.waiting_max)

    async def search(self, user_id: int, q: str, group_id: int | None, before: int | None, limit: int) -> Results:
        """At most `limit` messages with ids below `before`. Raises BadRequest, NotFound (not in `group_id`), Busy."""
        bounds = self._bounds
        query = parse_query(
            q,
            max_code_points=bounds.query_code_points,
            max_parts=bounds.query_parts,
            filter_code_points=bounds.filter_code_points,
        )
        if group_id is None:
            group_ids = [each.group_id for each in (await self._groups.memberships([user_id]))[user_id]]
        else:
            await self._group.access_group(user_id, group_id)
            group_ids = [group_id]
        if not group_ids:
            return Results([], None)
        async with self._turns.of(user_id):
            return await self._find(query, group_ids, before or MAX_INT64, min(limit, bounds.page_max))

    async def _find(self, query: Query, group_ids: list[int], before: int, limit: int) -> Results:
        bounds = self._bounds
        snippets = Snippets(query.parts, code_points=bounds.snippet_code_points, highlights_max=bounds.highlights_max)
        # First what is not indexed, then what is: what gets indexed in between is found twice, not missed.
        tail = await self._repository.not_indexed(group_ids, before, bounds.tail_max)
        found: dict[int, Stored] = {}
        breaths = Breaths()
        for each in tail:
            if snippets.matches(fold(each.body)):
                found[each.message_id] = each
            await breaths.take()
        hits = await self._hits(query, group_ids, before, limit + 1)
        ids = sorted(found.keys() | {hit.message_id for hit in hits}, reverse=True)
        page = ids[:limit]
        wanted = [hit for hit in hits if hit.message_id in page and hit.message_id not in found]
        if wanted:
            found |= {each.message_id: each for each in await self._repository.messages(wanted)}
        items = []
        for message_id in page:
            items.append(_found(found[message_id], snippets))
            await breaths.take()
        return Results(items, page[-1] if len(ids) > limit else None)

    async def _hits(self, query: Query, group_ids: list[int], before: int, most: int) -> list[Hit]:
        """The `most` newest of what is indexed.

        A look at the newest messages fills the page when the query is common, and tells how common it is. Common ones go on backwards in
        slices of time, the others to the index: it would bring all hits of a common query before the newest could be told.
        """
        bounds, repository = self._bounds, self._repository
        per_group = max(bounds.newest_per_group_min, bounds.newest_max // len(group_ids))
        newest = await repository.newest(group_ids, before, query.patterns, per_group, most)
        hits = newest.hits
        if len(hits) >= most or not newest.floor:
            return hits
        if newest.matching * bounds.dense_one_in >= newest.looked:
            end = newest.floor
            span = max(newest.top - newest.floor, 1)
            for _ in range(bounds.slices_max):
                span *= bounds.slice_growth
                start = max(0, end - span)
                hits = hits + await repository.between(group_ids, start, end, query.patterns, most - len(hits))
                if len(hits) >= most or not start:
                    return hits
                end = start
            return hits + await repository.indexed(group_ids, end, query.patterns, query.runs, most - len(hits))
        return hits + await repository.indexed(group_ids, newest.floor, query.patterns, query.runs, most - len(hits))


def _found(stored: Stored, snippets: Snippets) -> Found:
    snippet, highlights = snippets.cut(stored.body)
    return Found(stored.item, snippet, highlights)
