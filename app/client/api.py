"""Typed calls of the HTTP API. Errors are the server's own `AppError`s; Unreachable where there was no answer."""

from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

import aiohttp
import msgspec
from yarl import URL

from app.client.errors import ConnectionLost, Unreachable
from app.client.models import (
    Deltas,
    Endpoint,
    Group,
    Groups,
    History,
    Invite,
    Login,
    Member,
    Members,
    Presence,
    Ticket,
    User,
)
from app.errors import ERROR_TYPES, AppError, Busy, Internal, NotFound, Outcome
from app.protocol.frames import Message

Answer = TypeVar("Answer")
MAX_RETRY_AFTER_S = 3600
"""A header that says more is not a number we can use."""


class _Error(msgspec.Struct, frozen=True):
    code: str
    message: str
    outcome: Outcome | None = None


class _ErrorBody(msgspec.Struct, frozen=True):
    error: _Error


class Api:
    """`/api/v1` of one server; `token` is set by `login` and `register`, or given."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, token: str | None = None, *, timeout_s: float = 15
    ) -> None:
        self._http = http
        self._base = URL(url.rstrip("/") + "/api/v1/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self.token = token

    # Accounts

    async def register(self, username: str, password: str, display_name: str | None = None) -> Login:
        """A new account, logged in. Raises Conflict for a name that is taken."""
        body = {"username": username, "password": password}
        login = await self._ask(
            Login, "POST", "auth/register", body | ({"display_name": display_name} if display_name else {})
        )
        self.token = login.token
        return login

    async def login(self, username: str, password: str) -> Login:
        """A new session. Raises Unauthorized for a wrong name or password."""
        login = await self._ask(Login, "POST", "auth/login", {"username": username, "password": password})
        self.token = login.token
        return login

    async def logout(self) -> None:
        """End the session; its sockets are closed."""
        await self._do("POST", "auth/logout")
        self.token = None

    async def me(self) -> User:
        """The caller."""
        return await self._ask(User, "GET", "me")

    async def ticket(self) -> Ticket:
        """A single-use credential for the WebSocket's URL, for programs that cannot set headers."""
        return await self._ask(Ticket, "POST", "tickets")

    async def gateway(self, not_node: str | None = None) -> Endpoint:
        """Where to open the WebSocket; `not_node`: any but this one."""
        return await self._ask(Endpoint, "GET", "gateway", params={"not": not_node})

    # Groups

    async def create_group(self, name: str, visibility: str = "open") -> Group:
        """A new group, owned by the caller; `visibility` is open or invite."""
        return await self._ask(Group, "POST", "groups", {"name": name, "visibility": visibility})

    async def groups(self, cursor: str | None = None, limit: int | None = None) -> Groups:
        """One page of the caller's groups, with unread counts."""
        return await self._ask(Groups, "GET", "groups", params={"cursor": cursor, "limit": limit})

    async def discover(self, q: str | None = None, cursor: str | None = None) -> Groups:
        """One page of open groups."""
        return await self._ask(Groups, "GET", "groups/discover", params={"q": q, "cursor": cursor})

    async def update_group(self, group_id: str, *, name: str | None = None, announcement: str | None = None) -> Group:
        """Change name or announcement."""
        fields = {"name": name, "announcement": announcement}
        return await self._ask(Group, "PATCH", f"groups/{group_id}", {k: v for k, v in fields.items() if v is not None})

    async def disband(self, group_id: str) -> None:
        """End the group for everybody (owner)."""
        await self._do("DELETE", f"groups/{group_id}")

    async def join(self, group_id: str, invite_code: str | None = None) -> Group:
        """Become a member; a group by invitation needs its code."""
        return await self._ask(
            Group, "POST", f"groups/{group_id}/join", {"invite_code": invite_code} if invite_code else {}
        )

    async def leave(self, group_id: str) -> None:
        """Stop being a member. Raises Conflict for the owner."""
        await self._do("POST", f"groups/{group_id}/leave")

    async def invite(self, group_id: str) -> Invite:
        """A code that lets people join."""
        return await self._ask(Invite, "POST", f"groups/{group_id}/invite")

    async def transfer(self, group_id: str, user_id: str) -> Group:
        """Make a member the owner."""
        return await self._ask(Group, "POST", f"groups/{group_id}/transfer", {"user_id": user_id})

    async def members(self, group_id: str, cursor: str | None = None, limit: int | None = None) -> Members:
        """One page of members."""
        return await self._ask(Members, "GET", f"groups/{group_id}/members", params={"cursor": cursor, "limit": limit})

    async def presence(self, group_id: str) -> Presence | None:
        """Who of a group is online; None where the server does not tell."""
        try:
            return await self._ask(Presence, "GET", f"groups/{group_id}/presence")
        except NotFound:
            return None

    async def update_member(self, group_id: str, user_id: str, change: Mapping[str, Any]) -> Member:
        """Change `role` or `muted_until`."""
        return await self._ask(Member, "PATCH", f"groups/{group_id}/members/{user_id}", change)

    async def kick(self, group_id: str, user_id: str) -> None:
        """Remove a member, who may join again."""
        await self._do("DELETE", f"groups/{group_id}/members/{user_id}")

    async def ban(self, group_id: str, user_id: str) -> None:
        """Remove a user and keep them out."""
        await self._do("PUT", f"groups/{group_id}/bans/{user_id}")

    async def unban(self, group_id: str, user_id: str) -> None:
        """Let a banned user join again."""
        await self._do("DELETE", f"groups/{group_id}/bans/{user_id}")

    # Messages

    async def send(self, group_id: str, client_msg_id: UUID, body: str, kind: str = "text") -> Message:
        """Send over HTTP; answered after the commit. Raises ConnectionLost when the answer was lost: repeat with the same id."""
        fields = {"client_msg_id": str(client_msg_id), "kind": kind, "body": body}
        return await self._ask(Message, "POST", f"groups/{group_id}/messages", fields)

    async def history(
        self, group_id: str, *, after_seq: int | None = None, before_seq: int | None = None, limit: int | None = None
    ) -> History:
        """Messages after or before a seq; without either the newest."""
        params = {"after_seq": after_seq, "before_seq": before_seq, "limit": limit}
        return await self._ask(History, "GET", f"groups/{group_id}/messages", params=params)

    async def sync(self, cursors: Mapping[str, int], limit: int) -> Deltas:
        """What many groups have after the given seqs, at most `limit` messages a group."""
        groups = {group_id: {"seq": seq} for group_id, seq in cursors.items()}
        return await self._ask(Deltas, "POST", "sync", {"groups": groups, "limit": limit})

    async def read(self, group_id: str, seq: int) -> None:
        """Everything up to `seq` is read."""
        await self._do("PUT", f"groups/{group_id}/read", {"seq": seq})

    async def _ask(
        self,
        answer: type[Answer],
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
    ) -> Answer:
        content = await self._do(method, path, body, params=params)
        try:
            return msgspec.json.decode(content, type=answer)
        except msgspec.DecodeError as error:
            raise Unreachable(f"{self._base.origin()} answers, but not as Magpie does") from error

    async def _do(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, params: Mapping[str, Any] | None = None
    ) -> bytes:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        query = {name: str(value) for name, value in (params or {}).items() if value is not None}
        url = self._base.join(URL(path, encoded=True))
        try:
            async with self._http.request(
                method, url, json=body, params=query, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                content = await response.read()
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"no server answers at {self._base.origin()}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionLost(f"the connection to {self._base.origin()} ended before the answer") from error
        if response.status >= 300:
            raise to_error(response.status, content, response.headers.get("Retry-After"))
        return content


def retry_after_ms(header: str | None) -> int | None:
    """Milliseconds of a `Retry-After` in seconds; dates are not used by this protocol."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return round(seconds * 1000) if 0 <= seconds <= MAX_RETRY_AFTER_S else None


def to_error(status: int, content: bytes, retry_after: str | None) -> AppError:
    """The server's error; one of a proxy in between becomes Busy or Internal."""
    wait_ms = retry_after_ms(retry_after)
    try:
        error = msgspec.json.decode(content, type=_ErrorBody).error
    except msgspec.DecodeError:
        if status in (429, 503):
            return Busy("the server is busy; try again shortly", retry_after_ms=wait_ms)
        return Internal(f"the server answered with status {status}; try again later")
    kind = ERROR_TYPES.get(error.code, Internal)
    return kind(error.message, retry_after_ms=wait_ms, outcome=error.outcome)
