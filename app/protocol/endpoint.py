"""How an HTTP operation is described, apart from any server: one decorator, read by the router and by the OpenAPI generator.

A handler is an async method whose annotations are its contract:

    @endpoint("PATCH", "/groups/{group_id}", summary="Change name or announcement")
    async def update(self, call: Call, group_id: Id, body: GroupPatch) -> GroupAnswer: ...

`body` and `query` are pydantic models, other parameters are path parameters, the return type is the answer (None: 204).
"""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints
from uuid import UUID

from pydantic import BaseModel

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Limit = Literal["api", "login", "register"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a user in a session."""

    user_id: int
    sid: UUID
    expires_at: int
    """Seconds since 1970 when the session's token ends."""


@dataclass(slots=True)
class Call:
    """One HTTP call as a handler sees it. `host` is by which name and port the caller reached us."""

    request_id: str
    ip: str
    host: str
    principal: Principal | None = None
    csrf_token: str | None = None
    """What a browser with a session cookie must send back; None for callers with a token."""
    status: int | None = None
    """Set by a handler that answers with another success status than its usual one (200 for a repeat)."""

    @property
    def user(self) -> Principal:
        """The caller; endpoints with `auth` always have one."""
        if self.principal is None:
            raise AssertionError("endpoint without auth asked for its caller")
        return self.principal


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer that is JSON already: stored messages are encoded once and never decoded on the way out."""

    json: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The description of one operation."""

    method: Method
    path: str
    """Below `/api/v1`, with `{name}` for path parameters."""
    summary: str
    status: int
    auth: bool
    limit: Limit
    errors: tuple[str, ...]
    answer: type[BaseModel] | None
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    path_params: dict[str, Any] = field(default_factory=dict)
    other_statuses: tuple[int, ...] = ()
    """Success statuses that `Call.status` may ask for."""


Handler = Callable[..., Awaitable[Any]]


def endpoint(
    method: Method,
    path: str,
    *,
    summary: str,
    status: int = 200,
    auth: bool = True,
    limit: Limit = "api",
    errors: tuple[str, ...] = (),
    answer: type[BaseModel] | None = None,
    other_statuses: tuple[int, ...] = (),
) -> Callable[[Handler], Handler]:
    """Mark an async method as an HTTP operation.

    `errors` names the codes beside the ones every operation has; `answer` is needed only where the method returns `Raw`.
    """

    def mark(function: Handler) -> Handler:
        hints = get_type_hints(function, include_extras=True)
        returned = hints.pop("return", None)
        hints.pop("call", None)
        described = Endpoint(
            method=method,
            path=path,
            summary=summary,
            status=204 if returned is type(None) else status,
            auth=auth,
            limit=limit,
            errors=errors,
            answer=answer or (returned if inspect.isclass(returned) and issubclass(returned, BaseModel) else None),
            body=hints.pop("body", None),
            query=hints.pop("query", None),
            path_params=hints,
            other_statuses=other_statuses,
        )
        function.__endpoint__ = described  # type: ignore[attr-defined]  # read back by endpoints_of only
        return function

    return mark


def endpoints_of(handlers: object) -> Iterator[tuple[Endpoint, Handler]]:
    """Every operation of a handlers object, in the order of definition."""
    for name in vars(type(handlers)):
        described = getattr(getattr(handlers, name), "__endpoint__", None)
        if isinstance(described, Endpoint):
            yield described, getattr(handlers, name)
