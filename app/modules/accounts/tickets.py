"""Tickets: single-use, short-lived stand-ins for a session, for places where a credential must stand in a URL."""

import secrets
import time
from uuid import UUID

from app.errors import Busy, Unauthorized
from app.modules.accounts.sessions import SessionService
from app.protocol.endpoint import Principal
from app.storage.redis import ERRORS, Redis

TICKET_BYTES = 24


class TicketService:
    """`Ticket:{id}` in Redis; redeeming deletes it in the same step."""

    def __init__(self, redis: Redis, sessions: SessionService, ttl_s: int) -> None:
        self._redis = redis
        self._sessions = sessions
        self._ttl_s = ttl_s

    async def issue(self, principal: Principal) -> tuple[str, int]:
        """(ticket, end in ms since 1970). Raises Busy when Redis is away."""
        ticket = secrets.token_urlsafe(TICKET_BYTES)
        try:
            await self._redis.set(_key(ticket), str(principal.sid), ex=self._ttl_s)
        except ERRORS:
            raise Busy("tickets cannot be issued now; try again", retry_after_ms=1000) from None
        return ticket, round((time.time() + self._ttl_s) * 1000)

    async def redeem(self, ticket: str) -> Principal:
        """Who the ticket stands for. Raises Unauthorized for unknown, used and late ones, Busy when a store is away."""
        try:
            sid = await self._redis.getdel(_key(ticket[:64]))
        except ERRORS:
            raise Busy("tickets cannot be checked now; try again", retry_after_ms=1000) from None
        if not isinstance(sid, bytes):
            raise Unauthorized("the ticket is unknown, used or too old; get a new one")
        return await self._sessions.authenticate_sid(UUID(sid.decode()))


def _key(ticket: str) -> str:
    return f"Ticket:{{{ticket}}}"
