"""Who sends a request: a bearer token, a ticket, or a browser with its session cookie."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from app.errors import Forbidden, Unauthorized
from app.modules.accounts.sessions import SessionService
from app.modules.accounts.tickets import TicketService
from app.protocol.endpoint import Principal
from app.sections import Http
from app.web.cookies import check_csrf, sid_and_csrf

log = structlog.get_logger(__name__)

ORIGIN_SHOWN = 200
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal, and the CSRF token where it came by cookie."""

    principal: Principal
    csrf_token: str | None = None


class Credentials:
    """Turns the credential of a request into a caller. Methods raise Unauthorized, Forbidden, and Busy when a store is away."""

    def __init__(self, sessions: SessionService, tickets: TicketService, origins: frozenset[str]) -> None:
        self._sessions = sessions
        self._tickets = tickets
        self._origins = origins

    async def of_call(self, request: web.Request) -> Caller:
        """For HTTP: bearer token, else cookie; an unsafe call with the cookie needs the CSRF token and, if given, our Origin."""
        token = _bearer(request)
        if token is not None:
            return Caller(await self._sessions.authenticate_token(token))
        sid, csrf = await sid_and_csrf(request)
        if request.method not in SAFE_METHODS:
            if "Origin" in request.headers:
                self.check_origin(request)
            check_csrf(request, csrf)
        return Caller(await self._sessions.authenticate_sid(sid), csrf)

    async def of_socket(self, request: web.Request) -> Principal:
        """For the WebSocket upgrade: bearer token, ticket, or the cookie together with an allowed Origin."""
        token = _bearer(request)
        if token is not None:
            return await self._sessions.authenticate_token(token)
        ticket = request.query.get("ticket")
        if ticket is not None:
            return await self._tickets.redeem(ticket)
        sid, _ = await sid_and_csrf(request)
        self.check_origin(request)
        return await self._sessions.authenticate_sid(sid)

    def check_origin(self, request: web.Request) -> None:
        """Browsers say which site a request comes from. Raises Forbidden when it is not ours."""
        if request.headers.getall("Origin", []) not in [[origin] for origin in self._origins]:
            # Who opened the server to a network sees pages that never connect, and no reason in the browser.
            origin = request.headers.get("Origin", "")[:ORIGIN_SHOWN]
            log.warning("origin_refused", origin=origin, hint="set http.public_url or http.allowed_origins")
            raise Forbidden("this Origin is not allowed; add it to http.allowed_origins")


def own_origins(http: Http) -> frozenset[str]:
    """The configured Origins; without a public URL those of this machine."""
    origins = set(http.allowed_origins)
    if http.public_url:
        parts = urlsplit(http.public_url)
        origins.add(f"{parts.scheme}://{parts.netloc}")
    else:
        origins |= {f"http://{host}:{http.port}" for host in ("localhost", "127.0.0.1")}
    return frozenset(origins)


def _bearer(request: web.Request) -> str | None:
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("use Authorization: Bearer with the token of the login")
    return token.strip()
