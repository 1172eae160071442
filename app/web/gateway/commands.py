"""What a client may ask for over its WebSocket: a method per frame type, one dispatcher that checks limits and maps errors."""

from collections.abc import Mapping
from typing import Protocol

import structlog

from app.errors import AppError, BadRequest, Internal, NotFound, RateLimited
from app.metrics import Metrics
from app.modules.messages.models import check_draft
from app.modules.messages.producer import MessageProducer
from app.modules.messages.read_marks import ReadMarks
from app.modules.messages.service import Resumed
from app.protocol import frames
from app.web.gateway.connection import Connection
from app.web.gateway.notices import Notices

log = structlog.get_logger(__name__)


class Resumer(Protocol):
    """The messages' service, as far as `resume` needs it."""

    async def resume(self, user_id: int, cursors: Mapping[int, int]) -> Mapping[int, Resumed]:
        """What each group has beyond the client's cursor."""


class Commands:
    """Carries out client frames. `dispatch` is the only place where failures become error frames."""

    def __init__(
        self,
        producer: MessageProducer,
        read_marks: ReadMarks,
        messages: Resumer,
        notices: Notices,
        metrics: Metrics,
        *,
        max_code_points: int,
        resume_groups_max: int,
        pull_within_ms: int,
    ) -> None:
        self._producer = producer
        self._read_marks = read_marks
        self._messages = messages
        self._notices = notices
        self._metrics = metrics
        self._sends_in = metrics.frames_in.labels("message.send")
        self._max_code_points = max_code_points
        self._resume_groups_max = resume_groups_max
        self._pull_within_ms = pull_within_ms

    async def dispatch(self, connection: Connection, text: str) -> None:
        """Carry out one text frame; every failure is answered, the connection stays."""
        request_id: int | None = None
        try:
            try:
                frame = frames.decode(text)
            except BadRequest:
                request_id = frames.request_id_of(text)
                self._metrics.frames_in.labels("bad").inc()
                self._take_token(connection)
                raise
            request_id = getattr(frame, "id", None)
            if isinstance(frame, frames.Send):
                self._sends_in.inc()
                self._send(connection, frame)
                return
            self._metrics.frames_in.labels(str(frame.__struct_config__.tag)).inc()
            self._take_token(connection)
            await self._carry_out(connection, frame)
        except AppError as error:
            connection.on_failure(request_id, error)
        except Exception:
            # The WebSocket edge: a defect is logged once and answered without details.
            log.exception("frame_failed", connection=connection.number)
            connection.on_failure(
                request_id, Internal("the server failed; the request may or may not have taken effect")
            )

    def _take_token(self, connection: Connection) -> None:
        wait_s = connection.frame_tokens.take()
        if wait_s > 0:
            raise RateLimited("too many frames; slow down", retry_after_ms=max(1, round(wait_s * 1000)))

    async def _carry_out(self, connection: Connection, frame: frames.ClientFrame) -> None:
        match frame:
            case frames.Ping():
                connection.send(frames.ok(frame.id))
            case frames.Read():
                self._read(connection, frame)
            case frames.Typing():
                self._typing(connection, frame)
            case frames.Focus():
                self._focus(connection, frame)
            case frames.Resume():
                await self._resume(connection, frame)

    def _send(self, connection: Connection, frame: frames.Send) -> None:
        try:
            draft = check_draft(
                int(frame.group_id),
                connection.principal.user_id,
                frame.client_msg_id,
                frame.kind,
                frame.body,
                self._max_code_points,
            )
        except BadRequest:
            # It will not reach the limit on sends.
            self._take_token(connection)
            raise
        self._producer.submit(draft, connection, frame.id)

    def _read(self, connection: Connection, frame: frames.Read) -> None:
        group_id = _own_group(connection, frame.group_id)
        self._read_marks.mark(connection.principal.user_id, group_id, frame.seq)
        connection.send(frames.ok(frame.id))

    def _typing(self, connection: Connection, frame: frames.Typing) -> None:
        group_id = _own_group(connection, frame.group_id)
        self._notices.add("typing", group_id, connection.principal.user_id)

    def _focus(self, connection: Connection, frame: frames.Focus) -> None:
        connection.focus = None if frame.group_id is None else _own_group(connection, frame.group_id)
        connection.send(frames.ok(frame.id))

    async def _resume(self, connection: Connection, frame: frames.Resume) -> None:
        if len(frame.groups) > self._resume_groups_max:
            raise BadRequest(f"resume at most {self._resume_groups_max} groups in one frame")
        cursors = {frames.group_id_of(text): cursor.seq for text, cursor in frame.groups.items()}
        connection.hold(frozenset(cursors))
        try:
            found = await self._messages.resume(connection.principal.user_id, cursors)
            connection.send(frames.resumed(frame.id, {g: (r.state, r.items, r.last_seq) for g, r in found.items()}))
        finally:
            connection.release(self._pull_within_ms)


def _own_group(connection: Connection, text: str) -> int:
    """The id of a group whose packets this connection gets. Raises NotFound."""
    group_id = int(text)
    if group_id not in connection.groups:
        raise NotFound("no such group")
    return group_id
