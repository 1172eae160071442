"""Reading messages back: history in both directions, sync of many groups, resume. Members only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from app.errors import BadRequest
from app.modules.groups.models import Profile
from app.modules.messages.hot import HotCache
from app.modules.messages.repository import MessageRepository


class Access(Protocol):
    """A member's view of a group, as far as messages need it."""

    @property
    def last_seq(self) -> int:
        """The committed head."""


class GroupGate(Protocol):
    """The way to a group: only for members."""

    async def access_group(self, user_id: int, group_id: int) -> Access:
        """Raises NotFound for outsiders and ex-members."""

    async def access_groups(self, user_id: int, group_ids: Sequence[int]) -> Mapping[int, Access]:
        """Those of `group_ids` the user is a member of."""


class Names(Protocol):
    """The accounts' service, as far as messages need it."""

    async def profiles(self, user_ids: Sequence[int]) -> Mapping[int, Profile]:
        """Those of `user_ids` that exist."""


@dataclass(frozen=True, slots=True)
class Page:
    """Items as JSON, rising seq; `last_seq` is the committed head."""

    items: list[bytes]
    last_seq: int
    has_more: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """`current`: nothing new. `delta`: `items` is all that is new. `behind`: pull. `reset`: forget the cursor, it is not of this group."""

    state: Literal["current", "delta", "behind", "reset"]
    items: list[bytes] | None
    last_seq: int


class MessageService:
    """Answers from the hot cache where it is complete, else from PostgreSQL."""

    def __init__(
        self,
        repository: MessageRepository,
        hot: HotCache,
        groups: GroupGate,
        names: Names,
        *,
        page_max: int,
        sync_items_max: int,
        resume_items_max: int,
        resume_bytes_max: int,
    ) -> None:
        self._repository = repository
        self._hot = hot
        self._groups = groups
        self._names = names
        self._page_max = page_max
        self._sync_items_max = sync_items_max
        self._resume_items_max = resume_items_max
        self._resume_bytes_max = resume_bytes_max

    async def history(
        self, user_id: int, group_id: int, *, after_seq: int | None, before_seq: int | None, limit: int
    ) -> Page:
        """Up to `limit` messages after or before a seq; without either the newest. Raises NotFound, BadRequest."""
        if after_seq is not None and before_seq is not None:
            raise BadRequest("give after_seq or before_seq, not both")
        limit = min(limit, self._page_max)
        last_seq = (await self._groups.access_group(user_id, group_id)).last_seq
        if after_seq is not None:
            first, last = after_seq + 1, min(after_seq + limit, last_seq)
            has_more = last < last_seq
        else:
            last = min(last_seq, before_seq - 1) if before_seq is not None else last_seq
            first = max(1, last - limit + 1)
            has_more = first > 1 and last >= first
        if first > last:
            return Page([], last_seq, False)
        items = await self._items({group_id: (first, last)}, {group_id: last_seq})
        return Page(items[group_id], last_seq, has_more)

    async def sync(self, user_id: int, cursors: Mapping[int, int], limit: int) -> dict[int, Page]:
        """What each group has after the given seq, oldest first, at most `limit` a group and `sync_items_max` in all.

        Groups the user is not in are left out.
        """
        accessible = await self._groups.access_groups(user_id, list(cursors))
        budget, limit = self._sync_items_max, min(limit, self._page_max)
        ranges: dict[int, tuple[int, int]] = {}
        for group_id, access in accessible.items():
            after = cursors[group_id]
            last = min(access.last_seq, after + min(limit, budget))
            if last > after:
                ranges[group_id] = (after + 1, last)
                budget -= last - after
        heads = {group_id: access.last_seq for group_id, access in accessible.items()}
        items = await self._items(ranges, heads)
        return {
            group_id: Page(items.get(group_id, []), head, ranges.get(group_id, (0, cursors[group_id]))[1] < head)
            for group_id, head in heads.items()
        }

    async def senders(self, user_id: int, group_id: int, user_ids: Sequence[int]) -> list[Profile]:
        """Who wrote in the group, of these users; they need not be members any more. Raises NotFound."""
        await self._groups.access_group(user_id, group_id)
        return list((await self._names.profiles(await self._repository.senders_among(group_id, user_ids))).values())

    async def resume(self, user_id: int, cursors: Mapping[int, int]) -> dict[int, Resumed]:
        """What each group has beyond the client's cursor; small differences at once, larger ones left to a pull."""
        pages = await self.sync(user_id, cursors, self._resume_items_max)
        budget = self._resume_bytes_max
        found: dict[int, Resumed] = {}
        for group_id, seq in cursors.items():
            page = pages.get(group_id)
            if page is None or seq > page.last_seq:
                found[group_id] = Resumed("reset", None, page.last_seq if page else 0)
                continue
            size = sum(map(len, page.items))
            if page.last_seq == seq:
                found[group_id] = Resumed("current", None, seq)
            elif page.has_more or size > budget:
                found[group_id] = Resumed("behind", None, page.last_seq)
            else:
                budget -= size
                found[group_id] = Resumed("delta", page.items, page.last_seq)
        return found

    async def _items(self, ranges: Mapping[int, tuple[int, int]], heads: Mapping[int, int]) -> dict[int, list[bytes]]:
        cached = {g: r for g, r in ranges.items() if self._hot.may_hold(r[0], heads[g])}
        found = await self._hot.items_between(cached) if cached else {}
        missing = {group: bounds for group, bounds in ranges.items() if group not in found}
        if missing:
            found |= await self._repository.items_between(missing)
        return found
