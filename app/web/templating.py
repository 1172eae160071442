"""Templates and static files, read before anything is served."""

from pathlib import Path

import aiohttp_jinja2
import jinja2
from aiohttp import web

FOLDER = Path(__file__).parent


def setup_files(app: web.Application) -> None:
    """Compile every template now, since later it would be file access on the event loop; serve style sheet and logo."""
    environment = aiohttp_jinja2.setup(
        app,
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        auto_reload=False,
    )
    for name in environment.list_templates():
        environment.get_template(name)
    app.router.add_static("/static", FOLDER / "static")
