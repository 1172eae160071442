"""Requests that no honest client sends: refused with the right status, nothing changed, nothing told."""

import asyncio
import base64
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
import pytest
from structlog.testing import capture_logs

from app.protocol.frames import SUBPROTOCOL
from tests.running import PASSWORD, Server, serving, settings_for

SECRET = "k" * 32
OWN = "https://chat.example.org"


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    http = {"allowed_origins": (OWN,), "body_timeout_s": 0.3}
    async with serving(settings_for(dsn, redis_url, http=http)) as server:
        yield server


async def me(server: Server, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    async with server.http.get(f"{server.url}/api/v1/me", headers=headers) as response:
        return response.status


async def test_only_our_own_tokens_count(server: Server) -> None:
    ann, bob = await server.users(2)
    good = jwt.decode(ann.token, SECRET, ["HS256"], audience="magpie")

    def sign(claims: dict[str, Any], key: str = SECRET, algorithm: str = "HS256", **headers: Any) -> str:
        return jwt.encode(good | claims, key, algorithm, headers=headers or None)

    assert await me(server, sign({})) == 200
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT"}).encode()).rstrip(b"=").decode()
    without = {name: value for name, value in good.items() if name != "sid"}
    for bad in (
        header + "." + ann.token.split(".")[1] + ".",
        sign({}, key="x" * 32),
        sign({}, key="k" * 64, algorithm="HS512"),
        sign({}, algorithm="HS512", key=SECRET * 2),
        sign({"exp": int(time.time()) - 1}),
        sign({"aud": "other"}),
        sign({"iss": "other"}),
        sign({"sub": bob.id}),
        sign({"sid": str(uuid.uuid4())}),
        sign({"sid": "x"}),
        sign({"sub": "x"}),
        sign({}, crit=["exp"]),
        jwt.encode(without, SECRET, "HS256"),
        ann.token[:-2],
        "",
        "a.b.c",
        "é" * 10,
        "x" * 7000,
    ):
        assert await me(server, bad.encode("ascii", "replace").decode()) == 401


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (OWN, 101),
        (None, 403),
        ("null", 403),
        ("https://evil.example", 403),
        (OWN + ".evil.example", 403),
        ("http://chat.example.org", 403),
        (OWN + ":8443", 403),
    ],
)
async def test_a_browser_needs_its_cookie_and_our_origin(server: Server, origin: str | None, status: int) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{server.url}/register") as response:
            csrf = (await response.text()).split('name="csrf" value="')[1].split('"')[0]
        fields = {"username": "ann_1", "password": PASSWORD, "csrf": csrf}
        async with browser.post(f"{server.url}/register", data=fields) as response:
            assert response.status == 200
        headers = {"Origin": origin} if origin else {}
        found = 101
        with capture_logs() as logs:
            try:
                ws = await browser.ws_connect(server.ws_url(), headers=headers, protocols=(SUBPROTOCOL,))
                await ws.close()
            except aiohttp.WSServerHandshakeError as refused:
                found = refused.status
        assert found == status
        # The browser tells nobody why; the operator must find it in the log.
        told = [entry["origin"] for entry in logs if entry["event"] == "origin_refused"]
        assert told == ([] if status == 101 else [origin or ""])


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"{", "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b'{"name": NaN}', "application/json", 422),
        (b"[" * 20_000, "application/json", 422),
        (b"{}", "text/plain", 422),
        (b"name=x", "application/x-www-form-urlencoded", 422),
        (b'{"name": "g", "visibility": "secret"}', "application/json", 422),
        (b'{"name": "\\ud800", "visibility": "open"}', "application/json", 422),
        (b'{"name": "' + b"x" * 300_000 + b'"}', "application/json", 413),
        (b"", "application/json", 422),
    ],
)
async def test_bodies_that_are_none(server: Server, data: bytes, content_type: str, status: int) -> None:
    ann = await server.user()
    headers = ann.headers | {"Content-Type": content_type}
    async with server.http.post(f"{server.url}/api/v1/groups", data=data, headers=headers) as response:
        assert response.status == status
        error = (await response.json())["error"]
        assert (error["code"], error["outcome"]) == ("bad_request", "none")
        assert len(error["request_id"]) == 16
        assert "Traceback" not in str(error)


@pytest.mark.parametrize(
    "path",
    [
        "/groups/0", "/groups/-1", "/groups/abc", "/groups/9223372036854775808", "/groups/12/messages?limit=0",
        "/groups/12/messages?limit=101", "/groups/12/messages?after_seq=-1", "/groups/12/messages?after_seq=1&after_seq=2",
        "/groups/12/messages?unknown=1", "/me?x=1", "/groups/12/messages?after_seq=99999999999999999999",
    ],
)  # fmt: skip
async def test_addresses_that_are_not_valid(server: Server, path: str) -> None:
    ann = await server.user()
    async with server.http.get(f"{server.url}/api/v1{path}", headers=ann.headers) as response:
        assert response.status == 422


async def test_unknown_addresses_and_methods_are_json_errors_with_security_headers(server: Server) -> None:
    for method, path, status in (("GET", "/nothing", 404), ("DELETE", "/api/v1/me", 405), ("GET", "/static/../x", 404)):
        async with server.http.request(method, f"{server.url}{path}") as response:
            assert response.status == status
            assert (await response.json())["error"]["message"]
    for path in ("/nothing", "/login", "/api/v1/me", "/static/magpie.css", "/livez"):
        async with server.http.get(f"{server.url}{path}") as response:
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Server"] == "magpie"


async def test_a_body_that_does_not_arrive_is_cut(server: Server) -> None:
    ann = await server.user()
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /api/v1/groups HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {ann.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
    )
    async with asyncio.timeout(5):
        assert b"422" in await reader.readline()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("trusted", "forwarded", "statuses"),
    [
        ((), ["1.1.1.1", "2.2.2.2", "3.3.3.3"], [201, 201, 429]),
        (("127.0.0.0/8",), ["1.1.1.1", "2.2.2.2", "3.3.3.3"], [201, 201, 201]),
        (("127.0.0.0/8",), ["9.9.9.9, 1.1.1.1", "8.8.8.8, 1.1.1.1", "7.7.7.7, 1.1.1.1"], [201, 201, 429]),
        (("127.0.0.0/8",), ["nonsense", "nonsense", "nonsense"], [201, 201, 429]),
        (("127.0.0.0/8",), ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:3"], [201, 201, 429]),
        (("127.0.0.0/8",), ["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1"], [201, 201, 201]),
        (("127.0.0.0/8",), ["::ffff:1.1.1.1", "1.1.1.1", "::ffff:1.1.1.1"], [201, 201, 429]),
        (("127.0.0.0/8",), ["::ffff:1.1.1.1", "::ffff:2.2.2.2", "::ffff:3.3.3.3"], [201, 201, 201]),
    ],
)
async def test_forwarded_addresses_are_believed_from_trusted_proxies_only(
    dsn: str, redis_url: str, trusted: tuple[str, ...], forwarded: list[str], statuses: list[int]
) -> None:
    settings = settings_for(dsn, redis_url, http={"trusted_proxies": trusted}, limits={"register_per_minute": 2})
    async with serving(settings) as server:
        for number, (address, status) in enumerate(zip(forwarded, statuses, strict=True)):
            body = {"username": f"user_{number}", "password": PASSWORD}
            headers = {"X-Forwarded-For": address}
            async with server.http.post(f"{server.url}/api/v1/auth/register", json=body, headers=headers) as response:
                assert response.status == status


async def test_logs_hold_no_secrets_and_no_text(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ann = await server.user()
    group = await ann.group()
    ticket = (await ann.ok("POST", "/tickets"))["ticket"]
    async with server.http.ws_connect(f"{server.ws_url()}?ticket={ticket}", protocols=(SUBPROTOCOL,)) as ws:
        await ws.receive()
    await ann.post(group, "a private sentence")
    body = {"username": 'x\n{"message": "forged"}', "password": PASSWORD}
    async with server.http.post(f"{server.url}/api/v1/auth/login", json=body) as response:
        assert response.status == 401
    for secret in (PASSWORD, ann.token, ann.token.split(".")[2], ticket, "a private sentence", "forged"):
        assert secret not in caplog.text


async def test_metrics_on_the_public_port_are_for_this_machine(server: Server) -> None:
    async with server.http.get(f"{server.url}/metrics") as response:
        assert "im_messages_in_total" in await response.text()
    async with server.http.get(f"{server.url}/metrics", headers={"X-Forwarded-For": "1.2.3.4"}) as response:
        assert response.status == 404
