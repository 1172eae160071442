"""Bytes on the wire that no HTTP library would send: an answer below 500, and nothing about our insides."""

import asyncio
import gzip
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.running import PASSWORD, Server, serving, settings_for

FORM = b"application/x-www-form-urlencoded"


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url, http={"body_timeout_s": 0.3})) as server:
        yield server


@pytest.fixture
async def cookie(server: Server) -> bytes:
    """The cookie of somebody who is signed in, and so gets past the first check."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{server.url}/register") as response:
            csrf = (await response.text()).split('name="csrf" value="')[1].split('"')[0]
        fields = {"username": "ann_1", "password": PASSWORD, "csrf": csrf}
        async with browser.post(f"{server.url}/register", data=fields) as response:
            assert response.status == 200
        return "; ".join(f"{c.key}={c.value}" for c in browser.cookie_jar).encode()


async def raw(
    server: Server, start: bytes, *headers: bytes, body: bytes = b"", at: bytes = b"localhost"
) -> tuple[int, bytes]:
    """Status and the whole answer. Raises TimeoutError."""
    url = server.ws_url() if b" /ws" in start else f"{server.url}/"
    host, port = url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = (start + b" HTTP/1.1", b"Host: " + at, b"Connection: close", *headers)
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", answer)
        answer += await reader.readexactly(int(length[1]) if length else 0)
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer


def sized(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


@pytest.mark.parametrize(
    ("start", "headers", "status"),
    [
        (b"GET /api/v1/me", [b"Authorization: Bearer a.\xff.b"], 401),
        (b"GET /api/v1/me", [b"Cookie: magpie=\xff\xfe"], 401),
        (b"GET /ws?ticket=%ff", [], 401),
        (b"GET /ws?ticket=%ED%A0%80", [], 401),
        (b"GET /ws?ticket=%00", [], 401),
        (b"GET /ws", [b"Origin: \xff"], 403),
        (b"POST /api/v1/auth/logout", [b"X-CSRF-Token: \xff", b"Content-Length: 0"], 403),
        (b"GET /api/v1/groups/discover?q=%ED%A0%80", [], 200),
        (b"GET /api/v1/users?username=%00", [], 200),
        (b"GET /api/v1/users?username=%ED%A0%80%ff", [], 200),
        (b"GET /api/v1/groups/%ff", [], 422),
        (b"GET /static/%00", [], 404),
        (b"GET /static/..%2f..%2fsettings.py", [], 404),
        (b"GET /static/" + b"a" * 3000, [], 404),
        (b"GET /login?lang=%ff", [b"Accept-Language: \xff;q=x"], 200),
        (b"GET /login", [b"Accept-Language: zh;q=nan,en;q=\xb2"], 200),
    ],
)
async def test_bytes_that_are_no_text(
    server: Server, cookie: bytes, start: bytes, headers: list[bytes], status: int
) -> None:
    if not any(h.startswith((b"Cookie", b"Authorization")) for h in headers) and b"ticket" not in start:
        headers = [*headers, b"Cookie: " + cookie]
    found, answer = await raw(server, start, *headers)
    assert found == status, answer
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        (FORM + b"; charset=nope", b"a=b", 403),
        (FORM + b"; charset=utf-16", b"a=b", 403),
        (FORM, b"username=\xff\xfe", 403),
        (FORM, b"&".join([b"a=b"] * 30), 422),
        (FORM + b"\r\nContent-Encoding: gzip", b"no gzip", 422),
        (FORM + b"\r\nContent-Encoding: gzip", gzip.compress(b"username=" + b"a" * 10_000_000), 422),
        (b"multipart/form-data", b"a=b", 422),
        (b"multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="csrf"\r\n\r\nabc', 422),
        (b"\xff/\xfe", b"a=b", 422),
    ],
)
@pytest.mark.parametrize("path", [b"/login", b"/register", b"/logout"])
async def test_forms_that_no_browser_sends(
    server: Server, cookie: bytes, path: bytes, content_type: bytes, body: bytes, status: int
) -> None:
    found, answer = await raw(
        server, b"POST " + path, b"Cookie: " + cookie, b"Content-Type: " + content_type, sized(body), body=body
    )
    assert found == status, answer
    assert b"Traceback" not in answer


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b'{"username": "' + b"a" * 10_000_000)])
async def test_compressed_bodies_are_not_unpacked(server: Server, body: bytes) -> None:
    headers = (b"Content-Type: application/json", b"Content-Encoding: gzip", sized(body))
    status, answer = await raw(server, b"POST /api/v1/auth/login", *headers, body=body)
    assert status == 422
    assert b"without Content-Encoding" in answer


@pytest.mark.parametrize("path", [b"/login", b"/logout"])
async def test_a_form_that_does_not_arrive_is_cut(server: Server, cookie: bytes, path: bytes) -> None:
    headers = (b"Cookie: " + cookie, b"Content-Type: " + FORM, b"Content-Length: 100")
    status, answer = await raw(server, b"POST " + path, *headers, body=b"csrf=")
    assert status == 422
    assert b"not arrive in time" in answer


@pytest.mark.parametrize("path", [b"/", b"/login", b"/api/docs", b"/api/v1/me", b"/ws"])
@pytest.mark.parametrize("at", [b"a b", b"[::1", b"\xff", b"", b"a:b", b"a:99999", b"a@b", b"<script>", b"x" * 5000])
async def test_hosts_that_are_none(server: Server, cookie: bytes, path: bytes, at: bytes) -> None:
    status, answer = await raw(server, b"GET " + path, b"Cookie: " + cookie, at=at)
    assert status < 500, answer
    assert b"<script>" not in answer
