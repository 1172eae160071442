"""The browser's session cookie: encrypted, HttpOnly, SameSite=Lax; it holds the session's id and its CSRF token, nothing else."""

import hmac
import secrets
from uuid import UUID

import aiohttp_session
from aiohttp import web
from aiohttp_session.cookie_storage import EncryptedCookieStorage
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.errors import Forbidden, Unauthorized
from app.protocol.endpoint import Principal

COOKIE = "magpie"
CSRF_HEADER = "X-CSRF-Token"


class _Storage(EncryptedCookieStorage):
    """Bytes that are no text are no cookie of ours; the library fails on them."""

    def load_cookie(self, request: web.Request) -> str | None:
        cookie = super().load_cookie(request)
        return cookie if cookie and cookie.isascii() else None


def setup_cookies(app: web.Application, secret: str, *, max_age_s: int, secure: bool) -> None:
    """Let `aiohttp_session` read and write the cookie."""
    key = HKDF(SHA256(), 32, salt=None, info=b"magpie session cookie").derive(secret.encode())
    storage = _Storage(
        key,
        cookie_name=COOKIE,
        max_age=max_age_s,
        secure=secure,
        httponly=True,
        samesite="Lax",
    )
    aiohttp_session.setup(app, storage)


async def remember(request: web.Request, principal: Principal) -> None:
    """Put a new session into the cookie; what was in it before is void."""
    session = await aiohttp_session.new_session(request)
    session["sid"] = str(principal.sid)
    session["csrf"] = secrets.token_urlsafe(24)


async def sid_and_csrf(request: web.Request) -> tuple[UUID, str]:
    """What the cookie holds. Raises Unauthorized without a valid one."""
    session = await aiohttp_session.get_session(request)
    try:
        return UUID(session["sid"]), str(session["csrf"])
    except (KeyError, ValueError, TypeError, AttributeError):
        raise Unauthorized("log in first") from None


def check_csrf(request: web.Request, csrf: str) -> None:
    """A page of another site can send our cookie but not this header. Raises Forbidden."""
    given = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode(errors="replace"), csrf.encode()):
        raise Forbidden(f"send the CSRF token of GET /api/v1/me as {CSRF_HEADER}")
