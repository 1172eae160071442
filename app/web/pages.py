"""Pages for browsers: log in, register, and a start page. Plain forms; they work without a script."""

import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, Protocol

import aiohttp_jinja2
import aiohttp_session
from aiohttp import web

from app.errors import AppError, BadRequest, Conflict, Forbidden, NotFound, RateLimited, Unauthorized
from app.modules.accounts.service import AccountService
from app.modules.accounts.sessions import SessionService
from app.protocol.endpoint import Principal
from app.web.body import read_form
from app.web.cookies import remember, sid_and_csrf
from app.web.docs import described
from app.web.middlewares import CLIENT_IP
from app.web.templating import setup_files
from app.web.texts import LANGUAGE_COOKIE, TEXTS, language_of
from app.web.web_app import WebApp

LANGUAGE_DAYS = 365
SHOWN_GROUPS = 20

Form = Literal["login", "register"]


class GroupLister(Protocol):
    """The groups' service, as far as the start page needs it."""

    async def list_mine(self, user_id: int, after_id: int, limit: int) -> Any:
        """A page with `items`."""


class PageLimits(Protocol):
    """Rate limits of forms by address, of other pages by user."""

    async def check_address(self, limit: Form, address: str) -> None:
        """Raises RateLimited."""

    async def check_user(self, limit: Literal["api"], user_id: int) -> None:
        """Raises RateLimited."""


class Pages:
    """Every form carries a CSRF token that is bound to the encrypted cookie."""

    def __init__(
        self,
        accounts: AccountService,
        sessions: SessionService,
        groups: GroupLister,
        limits: PageLimits,
        document: Callable[[], Mapping[str, Any]],
        public_url: str,
        web_folder: Path | None,
        *,
        body_timeout_s: float,
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._groups = groups
        self._limits = limits
        self._document = document
        self._public_url = public_url
        self._web_folder = web_folder
        self._web_app: WebApp | None = None
        self._body_timeout_s = body_timeout_s

    def setup(self, app: web.Application) -> None:
        """Templates, static files, the web app and routes."""
        setup_files(app)
        self._web_app = WebApp.find(self._web_folder)
        if self._web_app is not None:
            self._web_app.setup(app)
        app.add_routes(
            [
                web.get("/", self._home),
                web.get("/login", self._form),
                web.post("/login", self._submit),
                web.get("/register", self._form),
                web.post("/register", self._submit),
                web.post("/logout", self._logout),
                web.get("/api/docs", self._docs),
                web.get("/api/openapi.json", self._openapi),
            ]
        )

    async def _home(self, request: web.Request) -> web.StreamResponse:
        try:
            principal, csrf = await self._signed_in(request)
            await self._limits.check_user("api", principal.user_id)
            user = await self._accounts.get(principal.user_id)
        except (Unauthorized, NotFound):
            return _see("/login")
        if "lang" in request.query:
            # The choice is in the cookie from now on; browsers keep what stands behind # in the address.
            return self._remember_language(request, _see("/"))
        if self._web_app is not None:
            return self._web_app.page(TEXTS[language_of(request)]["html_lang"])
        groups: Sequence[Any] = (await self._groups.list_mine(user.id, 0, SHOWN_GROUPS)).items
        return self._render(
            request, "home.html", {"user": user, "groups": groups, "csrf": csrf, "url": self._url(request)}
        )

    async def _form(self, request: web.Request) -> web.StreamResponse:
        return await self._show_form(request, _form_of(request))

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        form = _form_of(request)
        fields = await read_form(request, self._body_timeout_s)
        username, password = fields.get("username", ""), fields.get("password", "")
        session = await aiohttp_session.get_session(request)
        text = TEXTS[language_of(request)]
        if not _same(fields.get("csrf", ""), str(session.get("form", ""))):
            return await self._show_form(request, form, username, text["stale"], status=HTTPStatus.FORBIDDEN)
        try:
            await self._limits.check_address(form, request[CLIENT_IP])
            principal = await self._enter(form, username, password)
            await self._end_earlier(request)
        except AppError as error:
            message, field = _explain(error, text)
            return await self._show_form(request, form, username, message, field, error.status)
        await remember(request, principal)
        return _see("/")

    async def _enter(self, form: Form, username: str, password: str) -> Principal:
        if form == "register":
            return (await self._accounts.register(username, password, None))[2]
        return (await self._accounts.login(username, password))[2]

    async def _end_earlier(self, request: web.Request) -> None:
        """Whoever has a copy of the cookie that this login replaces is out."""
        with suppress(Unauthorized):
            await self._sessions.revoke((await self._signed_in(request))[0])

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        try:
            principal, csrf = await self._signed_in(request)
        except Unauthorized:
            return _see("/login")
        if not _same((await read_form(request, self._body_timeout_s)).get("csrf", ""), csrf):
            raise Forbidden("this form is not ours; load the page again")
        await self._sessions.revoke(principal)
        (await aiohttp_session.get_session(request)).invalidate()
        return _see("/login")

    async def _docs(self, request: web.Request) -> web.StreamResponse:
        url = self._url(request)
        return self._render(request, "docs.html", described(self._document(), url) | {"url": url})

    async def _openapi(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._document())

    async def _signed_in(self, request: web.Request) -> tuple[Principal, str]:
        sid, csrf = await sid_and_csrf(request)
        return await self._sessions.authenticate_sid(sid), csrf

    async def _show_form(
        self, request: web.Request, form: Form, username: str = "", error: str = "", field: str = "", status: int = 200
    ) -> web.StreamResponse:
        session = await aiohttp_session.get_session(request)
        token = session.setdefault("form", secrets.token_urlsafe(24))
        session.changed()
        context = {"form": form, "username": username[:20], "error": error, "field": field, "csrf": token}
        return self._render(request, "account.html", context, status)

    def _render(self, request: web.Request, name: str, context: Mapping[str, Any], status: int = 200) -> web.Response:
        language = language_of(request)
        response = aiohttp_jinja2.render_template(name, request, {"t": TEXTS[language], **context}, status=status)
        return self._remember_language(request, response)

    def _remember_language(self, request: web.Request, response: web.Response) -> web.Response:
        if "lang" in request.query:
            language, max_age_s = language_of(request), LANGUAGE_DAYS * 86400
            response.set_cookie(LANGUAGE_COOKIE, language, max_age=max_age_s, httponly=True, samesite="Lax")
        return response

    def _url(self, request: web.Request) -> str:
        try:
            return self._public_url or str(request.url.origin())
        except ValueError:
            raise BadRequest("the Host header names no host") from None


def _see(path: str) -> web.Response:
    """Go there next; a constant, so no redirect leads elsewhere."""
    return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": path})


def _form_of(request: web.Request) -> Form:
    return "register" if request.path == "/register" else "login"


def _same(given: str, expected: str) -> bool:
    return bool(expected) and hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _explain(error: AppError, text: Mapping[str, str]) -> tuple[str, str]:
    """(what to show, at which field); raises errors that a form cannot explain."""
    field = str((error.details or {}).get("field", ""))
    match error:
        case Conflict():
            return text["taken"], "username"
        case BadRequest() if field in ("username", "password"):
            return text[f"bad_{field}"], field
        case Unauthorized():
            return text["wrong_login"], ""
        case RateLimited():
            return text["too_fast"], ""
        case _ if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return text["busy"], ""
    raise error
