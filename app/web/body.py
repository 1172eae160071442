"""Request bodies, for operations and forms alike: bounded in size by aiohttp, in time here, and never decompressed."""

import asyncio
from urllib.parse import parse_qsl

from aiohttp import web

from app.errors import BadRequest

FIELDS_MAX = 20


async def read_body(request: web.Request, timeout_s: float) -> bytes:
    """All of it. Raises BadRequest when it is compressed, broken or not there after `timeout_s` seconds."""
    if "Content-Encoding" in request.headers:
        raise BadRequest("send the request body without Content-Encoding")
    try:
        async with asyncio.timeout(timeout_s):
            return await request.read()
    except TimeoutError:
        raise BadRequest("the request body did not arrive in time") from None
    except (web.RequestPayloadError, ValueError):
        raise BadRequest("the request body cannot be read") from None


async def read_form(request: web.Request, timeout_s: float) -> dict[str, str]:
    """The fields of a form as a browser sends it. Raises BadRequest."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise BadRequest("send the form as application/x-www-form-urlencoded")
    data = await read_body(request, timeout_s)
    try:
        return dict(parse_qsl(data.decode(errors="replace"), keep_blank_values=True, max_num_fields=FIELDS_MAX))
    except ValueError:
        raise BadRequest(f"a form has at most {FIELDS_MAX} fields") from None
