"""HTTP operations on accounts."""

from collections.abc import Callable
from typing import Annotated

from pydantic import Field, SecretStr

from app.errors import Busy
from app.modules.accounts.models import User
from app.modules.accounts.service import AccountService
from app.modules.accounts.sessions import SessionService
from app.modules.accounts.tickets import TicketService
from app.protocol.endpoint import Call, Principal, endpoint
from app.protocol.fields import AnswerModel, Body, Id

GATEWAY_RETRY_MS = 1000
"""An api knows of a new gateway within a second."""

Text = Annotated[str, Field(max_length=200)]
"""Bounded before anything looks at it; the exact rules are the domain's."""
Secret = Annotated[SecretStr, Field(max_length=200)]


class UserAnswer(AnswerModel):
    """A user as others see them."""

    id: Id
    username: str
    display_name: str


class MeAnswer(UserAnswer):
    """The caller; browsers send `csrf_token` back as `X-CSRF-Token`, it is null for callers with a token."""

    csrf_token: str | None = None


class GatewayAnswer(AnswerModel):
    """Where to connect. After a login `node` is empty while no gateway is there: ask for one before you connect."""

    url: str
    node: str


class AuthAnswer(AnswerModel):
    """A new session; `expires_at` in ms since 1970."""

    user: UserAnswer
    token: str
    expires_at: int
    gateway: GatewayAnswer


class TicketAnswer(AnswerModel):
    """A ticket for `/ws?ticket=`; `expires_at` in ms since 1970."""

    ticket: str
    expires_at: int


class UsersAnswer(AnswerModel):
    """Found users."""

    items: list[UserAnswer]


class RegisterBody(Body):
    """A new user; `display_name` defaults to the username."""

    username: Text
    password: Secret
    display_name: Text | None = None


class LoginBody(Body):
    """Credentials."""

    username: Text
    password: Secret


class ProfileBody(Body):
    """How the user is shown."""

    display_name: Text


class GatewayQuery(Body):
    """`not` names a node that did not work."""

    excluded: Annotated[Text | None, Field(alias="not")] = None


class UsersQuery(Body):
    """The exact username, without regard to case."""

    username: Text


class AccountHandlers:
    """Register, login, logout, profile, tickets, users."""

    def __init__(
        self,
        accounts: AccountService,
        sessions: SessionService,
        tickets: TicketService,
        gateway: Callable[[int, str | None], tuple[str, str]],
    ) -> None:
        """`gateway` gives (WebSocket URL or nothing, node id) for a user id, another one than the named node if it can.

        No node: no gateway is there.
        """
        self._accounts = accounts
        self._sessions = sessions
        self._tickets = tickets
        self._gateway = gateway

    @endpoint(
        "POST",
        "/auth/register",
        summary="Register",
        status=201,
        auth=False,
        limit="register",
        errors=("conflict", "busy"),
    )
    async def register(self, call: Call, body: RegisterBody) -> AuthAnswer:
        """Create a user and log in."""
        return self._answer(
            call, *await self._accounts.register(body.username, body.password.get_secret_value(), body.display_name)
        )

    @endpoint("POST", "/auth/login", summary="Log in", auth=False, limit="login", errors=("unauthorized", "busy"))
    async def login(self, call: Call, body: LoginBody) -> AuthAnswer:
        """Start a session."""
        return self._answer(call, *await self._accounts.login(body.username, body.password.get_secret_value()))

    @endpoint("POST", "/auth/logout", summary="Log out: end this session and close its sockets", errors=("busy",))
    async def logout(self, call: Call) -> None:
        """Revoke the session that the credential names."""
        await self._sessions.revoke(call.user)

    @endpoint("GET", "/me", summary="Who am I")
    async def me(self, call: Call) -> MeAnswer:
        """The caller's profile."""
        user = await self._accounts.get(call.user.user_id)
        return MeAnswer(**_shown(user).model_dump(), csrf_token=call.csrf_token)

    @endpoint("PATCH", "/me", summary="Change my display name")
    async def update_me(self, call: Call, body: ProfileBody) -> UserAnswer:
        """Change the caller's profile."""
        return _shown(await self._accounts.rename(call.user.user_id, body.display_name))

    @endpoint("POST", "/tickets", summary="A single-use ticket for /ws", errors=("busy",))
    async def ticket(self, call: Call) -> TicketAnswer:
        """For clients that cannot send headers with a WebSocket."""
        ticket, expires_at = await self._tickets.issue(call.user)
        return TicketAnswer(ticket=ticket, expires_at=expires_at)

    @endpoint("GET", "/gateway", summary="Where to connect", errors=("busy",))
    async def gateway(self, call: Call, query: GatewayQuery) -> GatewayAnswer:
        """The gateway for the caller."""
        found = self._where(call, call.user.user_id, query.excluded)
        if not found.node:
            raise Busy("no gateway is there; try again", retry_after_ms=GATEWAY_RETRY_MS)
        return found

    @endpoint("GET", "/users", summary="Find a user by exact name")
    async def users(self, call: Call, query: UsersQuery) -> UsersAnswer:
        """No list of all users: names are found, not browsed."""
        user = await self._accounts.find(query.username)
        return UsersAnswer(items=[_shown(user)] if user else [])

    def _answer(self, call: Call, user: User, token: str, principal: Principal) -> AuthAnswer:
        return AuthAnswer(
            user=_shown(user),
            token=token,
            expires_at=principal.expires_at * 1000,
            gateway=self._where(call, principal.user_id),
        )

    def _where(self, call: Call, user_id: int, excluded: str | None = None) -> GatewayAnswer:
        url, node = self._gateway(user_id, excluded)
        # Who was never told its own address is where the caller found it.
        return GatewayAnswer(url=url or f"ws://{call.host}/ws", node=node)


def _shown(user: User) -> UserAnswer:
    return UserAnswer(id=user.id, username=user.username, display_name=user.display_name)
