"""SQL of users and sessions: one statement per method."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from app.modules.accounts.models import User
from app.storage.postgres import Connection, Postgres


class AccountRepository:
    """Users and the audit of what they do with their accounts."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def add(self, connection: Connection, user: User, password_hash: str) -> bool:
        """Insert a user; False when the name is taken."""
        tag = await connection.execute(
            """INSERT INTO users (user_id, username, display_name, password_hash) VALUES ($1, $2, $3, $4)
               ON CONFLICT (lower(username)) DO NOTHING""",
            user.id,
            user.username,
            user.display_name,
            password_hash,
        )
        return tag == "INSERT 0 1"

    async def find_login(self, username: str) -> tuple[User, str] | None:
        """A user with the password's hash, by name without regard to case."""
        row = await self._postgres.fetchrow(
            "SELECT user_id, username, display_name, password_hash FROM users WHERE lower(username) = lower($1)",
            username,
        )
        return None if row is None else (User(row[0], row[1], row[2]), row[3])

    async def by_ids(self, user_ids: Sequence[int]) -> dict[int, User]:
        """Those of `user_ids` that exist."""
        rows = await self._postgres.fetch(
            "SELECT user_id, username, display_name FROM users WHERE user_id = ANY($1::bigint[])", user_ids
        )
        return {row[0]: User(row[0], row[1], row[2]) for row in rows}

    async def set_display_name(self, user_id: int, name: str) -> None:
        """Change how a user is shown."""
        await self._postgres.execute("UPDATE users SET display_name = $2 WHERE user_id = $1", user_id, name)

    async def audit(self, connection: Connection, user_id: int, action: str) -> None:
        """Note what a user did with their account."""
        await connection.execute("INSERT INTO audit_log (actor_id, action) VALUES ($1, $2)", user_id, action)


class SessionRepository:
    """Sessions: valid until they expire or are revoked."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def add(self, connection: Connection, sid: UUID, user_id: int, expires_at: int) -> None:
        """Insert a session, and forget those of this user that ended by themselves; `expires_at` in seconds since 1970."""
        await connection.execute("DELETE FROM sessions WHERE user_id = $1 AND expires_at < now()", user_id)
        await connection.execute(
            "INSERT INTO sessions (sid, user_id, expires_at) VALUES ($1, $2, $3)",
            sid,
            user_id,
            datetime.fromtimestamp(expires_at, UTC),
        )

    async def valid(self, sids: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
        """Valid ones of `sids`: sid → (user_id, end in seconds since 1970)."""
        rows = await self._postgres.fetch(
            """SELECT sid, user_id, extract(epoch FROM expires_at)::bigint FROM sessions
               WHERE sid = ANY($1::uuid[]) AND revoked_at IS NULL AND expires_at > now()""",
            sids,
        )
        return {UUID(str(row[0])): (row[1], row[2]) for row in rows}

    async def revoke(self, connection: Connection, sid: UUID) -> bool:
        """End a session; False when it had ended already."""
        tag = await connection.execute(
            "UPDATE sessions SET revoked_at = now() WHERE sid = $1 AND revoked_at IS NULL", sid
        )
        return tag == "UPDATE 1"
