"""The web app as it was built into a folder: read once, then served from memory."""

import gzip
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from aiohttp import web

from app.errors import ConfigError

log = structlog.get_logger(__name__)

FOREVER = "public, max-age=31536000, immutable"
"""The name of an asset changes with its content."""
LANGUAGE = '<html lang="en">'
"""In the built page; the app reads its language there."""
TYPES = {
    ".css": "text/css",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
"""Ours: tables of the operating system differ, and browsers run no module of another type. Others are `UNKNOWN_TYPE`."""
UNKNOWN_TYPE = "application/octet-stream"
TEXTS = (".js", ".css", ".svg", ".json", ".map")
"""In UTF-8, and sent compressed."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebApp:
    """The page, and the files it names. Raises ConfigError for a folder that holds something else."""

    def __init__(self, folder: Path) -> None:
        self._page = (folder / "index.html").read_text(encoding="utf-8")
        if self._page.count(LANGUAGE) != 1:
            raise ConfigError(f"{folder} holds no web app of this version; build it again: make run")
        self._assets = {path.name: path.read_bytes() for path in (folder / "assets").iterdir()}

    @classmethod
    def find(cls, folder: Path | None) -> "WebApp | None":
        """None where it was not built; the server does everything else without it."""
        if folder is None:
            return None
        try:
            return cls(folder)
        except FileNotFoundError:
            log.warning("web_app_missing", folder=str(folder), hint="make run builds it")
            return None

    def page(self, html_lang: str) -> web.Response:
        """The page in a language; the rest is up to its script."""
        text = self._page.replace(LANGUAGE, f'<html lang="{html_lang}">')
        return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-cache"})

    def setup(self, app: web.Application) -> None:
        """A route for each file: what does not exist has no address."""
        for name, content in self._assets.items():
            app.router.add_get(f"/assets/{name}", _asset(name, content))


def _asset(name: str, content: bytes) -> Handler:
    content_type = TYPES.get(Path(name).suffix, UNKNOWN_TYPE)
    charset = "utf-8" if name.endswith(TEXTS) else None
    zipped = gzip.compress(content, mtime=0) if name.endswith(TEXTS) else None
    etag = hashlib.sha256(content).hexdigest()[:20]

    async def answer(request: web.Request) -> web.Response:
        headers = {"Cache-Control": FOREVER, "ETag": f'"{etag}"', "Vary": "Accept-Encoding"}
        if any(one.value == etag for one in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        body = content
        if zipped is not None and "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = zipped
        return web.Response(body=body, content_type=content_type, charset=charset, headers=headers)

    return answer
