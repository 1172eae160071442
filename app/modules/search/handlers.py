"""HTTP operation of searching. Messages travel as the JSON they were stored with."""

from typing import Annotated

import msgspec
from pydantic import Field

from app.modules.messages.handlers import MessageAnswer
from app.modules.search.models import Results
from app.modules.search.service import SearchService
from app.protocol.endpoint import Call, Raw, endpoint
from app.protocol.fields import AnswerModel, Body, Id

LIMIT_MAX = 50


class SearchQuery(Body):
    """What to look for, and the page: `before` is the `next` of the page before."""

    q: Annotated[str, Field(min_length=1)]
    group_id: Id | None = None
    before: Id | None = None
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = 20


class FoundMessage(AnswerModel):
    """A message and where the query occurs in `snippet`, a part of its body: `[start, end)` in code points."""

    message: MessageAnswer
    snippet: str
    highlights: list[tuple[int, int]]


class SearchAnswer(AnswerModel):
    """One page, newest first; `next` is null at the end, and not before: a page may have few items, or none."""

    items: list[FoundMessage]
    next: Id | None


class _Item(msgspec.Struct):
    message: msgspec.Raw
    snippet: str
    highlights: list[tuple[int, int]]


class _Page(msgspec.Struct):
    items: list[_Item]
    next: str | None


class SearchHandlers:
    """Search."""

    def __init__(self, service: SearchService) -> None:
        self._service = service

    @endpoint(
        "GET",
        "/search/messages",
        summary="Find messages in your groups",
        errors=("not_found", "busy"),
        answer=SearchAnswer,
    )
    async def search(self, call: Call, query: SearchQuery) -> Raw:
        """All parts of `q` must occur. Chinese and the like anywhere, words from their beginning, quoted ones contiguously."""
        return Raw(
            _encoded(await self._service.search(call.user.user_id, query.q, query.group_id, query.before, query.limit))
        )


def _encoded(results: Results) -> bytes:
    items = [_Item(msgspec.Raw(found.item), found.snippet, found.highlights) for found in results.items]
    return msgspec.json.encode(_Page(items, None if results.next_id is None else str(results.next_id)))
