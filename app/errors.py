"""Every error the domain raises, and what each one means to a client.

    ConfigError                      the operator must change something; exit code 2
    AppError
    ├── BadRequest     bad_request   422  none
    ├── Unauthorized   unauthorized  401  none
    ├── Forbidden      forbidden     403  none
    ├── NotFound       not_found     404  none
    ├── Conflict       conflict      409  none
    ├── Rejected       rejected      422  none     the word filter said no
    ├── RateLimited    rate_limited  429  none     carries retry_after_ms
    ├── Busy           busy          503  none     carries retry_after_ms
    ├── SendTimeout    timeout       504  unknown
    └── Internal       internal      500  unknown

`outcome` tells a sender what is known: `none` means this attempt will never appear, `unknown` means send again with the same
`client_msg_id`. Two functions map errors to the wire: one in `web/middlewares.py` (HTTP), one in `protocol/frames.py` (WebSocket).
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

Outcome = Literal["none", "unknown"]


class ConfigError(Exception):
    """The process cannot run as configured. The message is one sentence that says what to change; exit code 2."""


class AppError(Exception):
    """An expected failure with a stable `code`; `message` is shown to the client, so it never holds internals."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    outcome: Outcome = "none"

    def __init__(
        self,
        message: str,
        *,
        retry_after_ms: int | None = None,
        details: Mapping[str, object] | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.details = details
        if outcome is not None:
            self.outcome = outcome


class BadRequest(AppError):
    """The input does not follow the protocol or breaks a limit."""

    code, status = "bad_request", 422


class Unauthorized(AppError):
    """No valid credential."""

    code, status = "unauthorized", 401


class Forbidden(AppError):
    """The caller is known but may not do this (role, mute, foreign Origin, CSRF)."""

    code, status = "forbidden", 403


class NotFound(AppError):
    """The object does not exist for this caller; ex-members and outsiders get this for groups."""

    code, status = "not_found", 404


class Conflict(AppError):
    """The state does not allow it: a name taken, the same key with other content."""

    code, status = "conflict", 409


class Rejected(AppError):
    """The word filter refused the text."""

    code, status = "rejected", 422


class RateLimited(AppError):
    """Too many; `retry_after_ms` says when the next one fits."""

    code, status = "rate_limited", 429


class Busy(AppError):
    """The server sheds load or waits for a store; `retry_after_ms` says when to try again."""

    code, status = "busy", 503


class SendTimeout(AppError):
    """No answer within `send_timeout_s`; the message may or may not be stored."""

    code, status = "timeout", 504
    outcome: Outcome = "unknown"


class Internal(AppError):
    """A defect or an unclassified failure; details are in the log under the request id."""

    code, status = "internal", 500
    outcome: Outcome = "unknown"


ERROR_TYPES: Mapping[str, type[AppError]] = {
    t.code: t
    for t in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        Conflict,
        Rejected,
        RateLimited,
        Busy,
        SendTimeout,
        Internal,
    )
}
