"""Registering, logging in, profiles."""

from collections.abc import Sequence
from typing import Protocol

from app.errors import Conflict, NotFound, Unauthorized
from app.modules.accounts.models import User, check_display_name, check_password, check_username
from app.modules.accounts.passwords import Passwords
from app.modules.accounts.repository import AccountRepository
from app.modules.accounts.sessions import SessionService
from app.protocol.endpoint import Principal
from app.storage.postgres import Postgres


class IdSource(Protocol):
    """Snowflake ids."""

    def stamp(self, n: int) -> list[int]:
        """`n` rising ids."""


class AccountService:
    """Every method may raise Busy when the database is away or too many hash at once."""

    def __init__(
        self,
        postgres: Postgres,
        accounts: AccountRepository,
        sessions: SessionService,
        passwords: Passwords,
        ids: IdSource,
    ) -> None:
        self._postgres = postgres
        self._accounts = accounts
        self._sessions = sessions
        self._passwords = passwords
        self._ids = ids

    async def register(self, username: str, password: str, display_name: str | None) -> tuple[User, str, Principal]:
        """A new user, logged in: (user, token, session). Raises BadRequest, Conflict when the name is taken."""
        check_username(username)
        check_password(password)
        name = check_display_name(display_name) if display_name is not None else username
        password_hash = await self._passwords.hash(password)
        user = User(self._ids.stamp(1)[0], username, name)
        async with self._postgres.transaction() as connection:
            if not await self._accounts.add(connection, user, password_hash):
                raise Conflict("this username is taken; choose another", details={"field": "username"})
            token, principal = await self._sessions.issue(connection, user, "register")
        return user, token, principal

    async def login(self, username: str, password: str) -> tuple[User, str, Principal]:
        """(user, token, session). Raises Unauthorized, the same after the same time whether or not the user exists."""
        found = await self._accounts.find_login(username) if "\0" not in username else None
        if not await self._passwords.matches(password, found[1] if found else None) or found is None:
            raise Unauthorized("username or password is wrong")
        async with self._postgres.transaction() as connection:
            token, principal = await self._sessions.issue(connection, found[0], "login")
        return found[0], token, principal

    async def get(self, user_id: int) -> User:
        """One user. Raises NotFound."""
        users = await self._accounts.by_ids([user_id])
        if user_id not in users:
            raise NotFound("no such user")
        return users[user_id]

    async def rename(self, user_id: int, display_name: str) -> User:
        """Change how a user is shown. Raises BadRequest."""
        await self._accounts.set_display_name(user_id, check_display_name(display_name))
        return await self.get(user_id)

    async def find(self, username: str) -> User | None:
        """The user with exactly this name, without regard to case."""
        found = await self._accounts.find_login(username) if "\0" not in username else None
        return found[0] if found else None

    async def profiles(self, user_ids: Sequence[int]) -> dict[int, User]:
        """Those of `user_ids` that exist."""
        return await self._accounts.by_ids(user_ids)
