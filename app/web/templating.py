"""Templates and static files, read before anything is served."""

import mimetypes
import re
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import aiohttp_jinja2
import jinja2
from aiohttp import web
from markupsafe import Markup, escape

FOLDER = Path(__file__).parent
CACHED = "public, max-age=300"
"""After an update a browser may show the old style for five minutes."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def setup_files(app: web.Application) -> None:
    """Compile every template now, since later it would be file access on the event loop; serve style sheet and logo."""
    app[aiohttp_jinja2.APP_KEY] = _environment()
    for path in (FOLDER / "static").iterdir():
        app.router.add_get(f"/static/{path.name}", _file(path.read_bytes(), mimetypes.guess_type(path.name)[0]))


@cache
def _environment() -> jinja2.Environment:
    """Compiled once in a process, which takes 40 ms, however many applications are in it: nothing of one is in here."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
    )
    environment.filters["marked"] = _marked
    for name in environment.list_templates():
        environment.get_template(name)
    return environment


def _marked(text: str) -> Markup:
    """What docstrings write between backticks, as code."""
    # As a plain string: parts of a Markup are escaped once more when they are joined.
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def _file(content: bytes, content_type: str | None) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=content, content_type=content_type, headers={"Cache-Control": CACHED})

    return answer
