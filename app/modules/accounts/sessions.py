"""Sessions: the only thing a credential leads to. Checked in PostgreSQL, remembered for a moment, revoked everywhere."""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from uuid import UUID, uuid4

from app.delivery.publisher import Publisher
from app.errors import Unauthorized
from app.microbatch import MicroBatcher
from app.modules.accounts.models import User
from app.modules.accounts.repository import AccountRepository, SessionRepository
from app.modules.accounts.tokens import Tokens
from app.protocol.endpoint import Principal
from app.storage.postgres import Connection, Postgres

Found = tuple[int, int] | None
"""(user_id, end in seconds since 1970) of a valid session."""


class SessionService:
    """Issues, checks and revokes sessions."""

    def __init__(
        self,
        postgres: Postgres,
        sessions: SessionRepository,
        accounts: AccountRepository,
        tokens: Tokens,
        publisher: Publisher,
        *,
        ttl_s: int,
        cache_s: float,
        cache_max: int,
        linger_s: float,
        batch_max: int,
        waiting_max: int,
    ) -> None:
        self._postgres = postgres
        self._sessions = sessions
        self._accounts = accounts
        self._tokens = tokens
        self._publisher = publisher
        self._ttl_s = ttl_s
        self._cache_s = cache_s
        self._cache_max = cache_max
        self._cache: OrderedDict[UUID, tuple[float, int, int]] = OrderedDict()
        self._batcher = MicroBatcher[UUID, Found](
            self._load, max_batch=batch_max, linger_s=linger_s, max_waiting=waiting_max
        )

    async def issue(self, connection: Connection, user: User, action: str) -> tuple[str, Principal]:
        """A new session and its token, inside the caller's transaction; `action` goes into the audit log."""
        principal = Principal(user.id, uuid4(), int(time.time()) + self._ttl_s)
        await self._sessions.add(connection, principal.sid, user.id, principal.expires_at)
        await self._accounts.audit(connection, user.id, action)
        return self._tokens.sign(principal), principal

    async def authenticate_token(self, token: str) -> Principal:
        """Who a token stands for. Raises Unauthorized, Busy."""
        named = self._tokens.read(token)
        principal = await self.authenticate_sid(named.sid)
        if principal.user_id != named.user_id:
            raise Unauthorized("the token is not valid; log in again")
        return principal

    async def authenticate_sid(self, sid: UUID) -> Principal:
        """Who a session belongs to. Raises Unauthorized when it has ended, Busy when the database is away."""
        known = self._cache.get(sid)
        if known is not None and known[0] > time.monotonic() and known[2] > time.time():
            return Principal(known[1], sid, known[2])
        found = await self._batcher.get(sid)
        if found is None:
            raise Unauthorized("the session has ended; log in again")
        self._cache[sid] = (time.monotonic() + self._cache_s, *found)
        self._cache.move_to_end(sid)
        if len(self._cache) > self._cache_max:
            self._cache.popitem(last=False)
        return Principal(found[0], sid, found[1])

    async def valid(self, sids: Sequence[UUID]) -> set[UUID]:
        """Those that are neither revoked nor expired, asked from the database."""
        return set(await self._sessions.valid(sids))

    async def revoke(self, principal: Principal) -> None:
        """End a session and close its sockets on every gateway."""
        async with self._postgres.transaction() as connection:
            if await self._sessions.revoke(connection, principal.sid):
                await self._accounts.audit(connection, principal.user_id, "logout")
        self._cache.pop(principal.sid, None)
        await self._publisher.revoke([principal.sid], "logged out")

    async def _load(self, sids: Sequence[UUID]) -> Mapping[UUID, Found]:
        found = await self._sessions.valid(sids)
        return {sid: found.get(sid) for sid in sids}
