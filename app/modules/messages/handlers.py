"""HTTP operations on messages. Stored messages travel as the JSON they were stored with."""

import asyncio
from typing import Annotated, Literal, Protocol
from uuid import UUID

from pydantic import BeforeValidator, Field, WithJsonSchema

from app.errors import AppError
from app.modules.groups.models import MemberProfile
from app.modules.messages.models import check_draft
from app.modules.messages.producer import MessageProducer, answer_error
from app.modules.messages.read_marks import ReadMarks
from app.modules.messages.service import MessageService
from app.protocol import frames
from app.protocol.endpoint import Call, Raw, endpoint
from app.protocol.fields import ID_PATTERN, MAX_INT64, AnswerModel, Body, Id
from app.protocol.magpie_pb2 import Answer

SENDERS_MAX = 100
IDS_SCHEMA = WithJsonSchema(
    {
        "type": "string",
        "pattern": rf"^{ID_PATTERN[1:-1]}(,{ID_PATTERN[1:-1]}){{0,{SENDERS_MAX - 1}}}$",
        "examples": ["7291837465"],
    }
)


def _split(value: object) -> object:
    return value.split(",", SENDERS_MAX) if isinstance(value, str) else value


SeqValue = Annotated[int, Field(ge=0, le=MAX_INT64)]


class MessageAnswer(AnswerModel):
    """A stored message; `ts` is milliseconds since 1970."""

    message_id: Id
    group_id: Id
    seq: int
    sender_id: Id
    client_msg_id: UUID
    kind: Literal["text"]
    body: str
    ts: int


class HistoryAnswer(AnswerModel):
    """One page, rising seq."""

    items: list[MessageAnswer]
    has_more: bool


class GroupDelta(AnswerModel):
    """What one group has after the cursor."""

    items: list[MessageAnswer]
    last_seq: int
    has_more: bool


class SyncAnswer(AnswerModel):
    """By group id; groups the caller is not in are absent."""

    groups: dict[str, GroupDelta]


class SendBody(Body):
    """A message to send; repeat it with the same `client_msg_id` until it is answered."""

    client_msg_id: UUID
    kind: Literal["text"]
    body: str


class HistoryQuery(Body):
    """Which page; without a seq the newest."""

    after_seq: SeqValue | None = None
    before_seq: Annotated[int, Field(ge=1, le=MAX_INT64)] | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class Cursor(Body):
    """What the client has."""

    seq: SeqValue
    rev: SeqValue | None = None


class SyncBody(Body):
    """Cursors by group id."""

    groups: Annotated[dict[Id, Cursor], Field(max_length=500)]
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class SendersQuery(Body):
    """Whose names, as ids with commas between them."""

    ids: Annotated[tuple[Id, ...], BeforeValidator(_split), Field(min_length=1, max_length=SENDERS_MAX), IDS_SCHEMA]


class SendersAnswer(AnswerModel):
    """Those that wrote in the group; others are absent."""

    items: list[MemberProfile]


class ReadBody(Body):
    """Everything up to `seq` is read."""

    seq: SeqValue


class GroupCheck(Protocol):
    """Membership, for operations that carry no answer from which an outsider could tell."""

    async def access_group(self, user_id: int, group_id: int) -> object:
        """Raises NotFound."""


class _HttpSender:
    """Waits for the answer to one send over HTTP."""

    def __init__(self) -> None:
        self.unacked = 0
        self.result: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def on_answer(self, request_id: int, answer: Answer) -> None:
        if not self.result.done():
            self.result.set_result(answer)

    def on_failure(self, request_id: int, error: AppError) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class MessageHandlers:
    """Send, history, sync, read."""

    def __init__(
        self,
        service: MessageService,
        producer: MessageProducer,
        read_marks: ReadMarks,
        groups: GroupCheck,
        *,
        max_code_points: int,
    ) -> None:
        self._service = service
        self._producer = producer
        self._read_marks = read_marks
        self._groups = groups
        self._max_code_points = max_code_points

    @endpoint(
        "POST",
        "/groups/{group_id}/messages",
        summary="Send a message (200 for a repeat)",
        status=201,
        errors=("forbidden", "not_found", "conflict", "rejected", "busy", "timeout"),
        answer=MessageAnswer,
        other_statuses=(200,),
    )
    async def send(self, call: Call, group_id: Id, body: SendBody) -> Raw:
        """Answered after the commit."""
        draft = check_draft(
            group_id, call.user.user_id, body.client_msg_id, body.kind, body.body, self._max_code_points
        )
        sender = _HttpSender()
        self._producer.submit(draft, sender, 0)
        answer = await sender.result
        if answer.error_code:
            raise answer_error(answer)
        if answer.repeat:
            call.status = 200
        return Raw(answer.item)

    @endpoint(
        "GET",
        "/groups/{group_id}/messages",
        summary="Read history, in both directions",
        errors=("not_found", "busy"),
        answer=HistoryAnswer,
    )
    async def history(self, call: Call, group_id: Id, query: HistoryQuery) -> Raw:
        """Rising seq, whichever direction."""
        page = await self._service.history(
            call.user.user_id, group_id, after_seq=query.after_seq, before_seq=query.before_seq, limit=query.limit
        )
        return Raw(frames.history(page.items, page.has_more))

    @endpoint(
        "GET",
        "/groups/{group_id}/senders",
        summary="Names of who wrote in a group",
        errors=("not_found", "busy"),
        answer=SendersAnswer,
    )
    async def senders(self, call: Call, group_id: Id, query: SendersQuery) -> SendersAnswer:
        """Messages carry ids only, and their senders may have left: the list of members does not name them all."""
        found = await self._service.senders(call.user.user_id, group_id, query.ids)
        return SendersAnswer(
            items=[MemberProfile(id=one.id, username=one.username, display_name=one.display_name) for one in found]
        )

    @endpoint("POST", "/sync", summary="What many groups have after given cursors", errors=("busy",), answer=SyncAnswer)
    async def sync(self, call: Call, body: SyncBody) -> Raw:
        """One call instead of a history call per group."""
        cursors = {group_id: cursor.seq for group_id, cursor in body.groups.items()}
        pages = await self._service.sync(call.user.user_id, cursors, body.limit)
        return Raw(frames.deltas({group: (page.items, page.last_seq, page.has_more) for group, page in pages.items()}))

    @endpoint("PUT", "/groups/{group_id}/read", summary="Mark as read", errors=("not_found", "busy"))
    async def read(self, call: Call, group_id: Id, body: ReadBody) -> None:
        """Never moves back."""
        await self._groups.access_group(call.user.user_id, group_id)
        await self._read_marks.write_now(call.user.user_id, group_id, body.seq)
