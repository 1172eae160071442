"""What a real Nginx in front of real processes serves, hides and refuses."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from app.protocol.frames import SUBPROTOCOL
from local.cluster import Cluster
from local.nginx import WEB_FOLDER
from tests.proxied import HEADER_TIMEOUT_S, LOGINS_PER_MINUTE, http_to, logs_of, nginx_of, registered, trusting
from tests.running import PASSWORD

# The first test waits for the cluster, too.
pytestmark = [
    pytest.mark.xdist_group("nginx"),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(180),
]

OF_ONE_ANSWER = {"date", "server", "x-request-id", "etag", "last-modified", "accept-ranges", "connection", "keep-alive"}
OF_ITS_LENGTH = {"content-length", "transfer-encoding"}
"""Nginx compresses as it sends."""


@pytest_asyncio.fixture(loop_scope="session")
async def http(proxied: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    async with http_to(nginx_of(proxied)) as session:
        yield session


def headers_of(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items() if name.lower() not in OF_ONE_ANSWER}


async def raw(cluster: Cluster, sent: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """What the proxy answers to these bytes until it closes."""
    nginx = nginx_of(cluster)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", nginx.port, ssl=tls or trusting(nginx), server_hostname="localhost"
    )
    try:
        writer.write(sent)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("suffix", [".js", ".css"])
async def test_assets_come_as_the_application_sends_them(
    proxied: Cluster, http: aiohttp.ClientSession, suffix: str, encoding: str
) -> None:
    name = next(path.name for path in (WEB_FOLDER / "assets").iterdir() if path.suffix == suffix)
    asked = {"Accept-Encoding": encoding}
    async with http.get(f"/assets/{name}", headers=asked) as answer:
        front, content = headers_of(answer), await answer.read()
    api = proxied.of_role("api")[0]
    async with http.get(f"{api.url}/assets/{name}", headers=asked) as answer:
        behind = headers_of(answer)
        assert await answer.read() == content
    if encoding == "gzip":
        front, behind = ({k: v for k, v in one.items() if k not in OF_ITS_LENGTH} for one in (front, behind))
        assert front["content-encoding"] == "gzip"
    assert front == behind
    assert "immutable" in front["cache-control"]


async def test_an_asset_is_not_sent_twice(http: aiohttp.ClientSession) -> None:
    name = next((WEB_FOLDER / "assets").iterdir()).name
    async with http.get(f"/assets/{name}") as answer:
        etag = answer.headers["ETag"]
    async with http.get(f"/assets/{name}", headers={"If-None-Match": etag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")


@pytest.mark.parametrize("path", ["/login", "/static/magpie.css", "/assets/none.js", "/api/v1/me", "/nothing"])
async def test_everything_else_is_the_applications_own(
    proxied: Cluster, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.get(path) as front, http.get(proxied.of_role("api")[0].url + path) as behind:
        varying = {"set-cookie", "content-length"}  # session and request id
        assert front.status == behind.status
        assert {k: v for k, v in headers_of(front).items() if k not in varying} == {
            k: v for k, v in headers_of(behind).items() if k not in varying
        }


@pytest.mark.parametrize(
    "path", ["/metrics", "/livez", "/readyz", "//metrics", "/./readyz", "/x/../metrics", "/%6detrics", "/metrics?x=1"]
)
async def test_what_is_for_operators_is_not_shown(proxied: Cluster, path: str) -> None:
    answer = await raw(proxied, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "head",
    [
        "GET /login HTTP/1.1\r\nHost: evil.example",
        "GET /login HTTP/1.1\r\nHost: ",
        "GET https://evil.example/login HTTP/1.1\r\nHost: localhost",
        "GET /login HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
        'GET /login HTTP/1.1\r\nHost: a"b{}$',
        "GET /login HTTP/1.1",
        "GET /login HTTP/1.0",
    ],
)
async def test_a_host_that_is_not_ours_reaches_nobody(proxied: Cluster, head: str) -> None:
    answer = await raw(proxied, f"{head}\r\nConnection: close\r\n\r\n".encode())
    assert re.match(rb"HTTP/1.1 (400|421) ", answer)
    assert b"magpie" not in answer.lower()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_is_of_today(proxied: Cluster, version: ssl.TLSVersion) -> None:
    tls = trusting(nginx_of(proxied))
    tls.minimum_version = tls.maximum_version = version
    assert b" 421 " in await raw(proxied, b"GET / HTTP/1.0\r\n\r\n", tls)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_older_tls_is_refused_and_browsers_get_http_2(proxied: Cluster) -> None:
    nginx = nginx_of(proxied)
    tls = trusting(nginx)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("localhost", nginx.port, ssl=tls)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    writer.close()
    tls = trusting(nginx)
    tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
    tls.set_ciphers("ALL:@SECLEVEL=0")  # this side would say it
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        await raw(proxied, b"GET / HTTP/1.0\r\n\r\n", tls)


async def test_a_body_above_the_limit_stops_at_nginx(proxied: Cluster, http: aiohttp.ClientSession) -> None:
    async with http.post("/api/v1/auth/login", data=b"x" * 300_000) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["outcome"]) == (413, "bad_request", "none")
    line = await logged(proxied, error["request_id"])
    assert (line["upstream"], line["http.response.status_code"]) == ("", "413")


async def logged(cluster: Cluster, request_id: str) -> dict[str, str]:
    """The line of the access log; it is written once a second."""
    file = nginx_of(cluster).folder / "access.log"
    async with asyncio.timeout(10):
        while True:
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            if found := [line for line in lines if line["http.request.id"] == request_id]:
                return dict(found[0])
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("sent", [b"", b"GET /login HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_headers_that_do_not_arrive_cost_the_connection(proxied: Cluster, sent: bytes) -> None:
    async with asyncio.timeout(3 * HEADER_TIMEOUT_S):
        assert await raw(proxied, sent) == b""


async def test_a_forged_address_does_not_change_whose_limit_it_is(proxied: Cluster) -> None:
    nginx = nginx_of(proxied)
    body = {"username": "nobody", "password": PASSWORD}

    async def status(http: aiohttp.ClientSession, forged: str) -> int:
        async with http.post("/api/v1/auth/login", json=body, headers={"X-Forwarded-For": forged}) as answer:
            return answer.status

    async with http_to(nginx, "127.0.0.2") as http, http_to(nginx, "127.0.0.3") as other:
        tried = [await status(http, f"10.1.2.{number}, 127.0.0.1") for number in range(LOGINS_PER_MINUTE + 2)]
        assert tried[:LOGINS_PER_MINUTE] == [401] * LOGINS_PER_MINUTE
        assert 429 in tried[LOGINS_PER_MINUTE:]
        assert await status(other, "127.0.0.2") == 401


async def test_tickets_and_searches_are_in_no_log(proxied: Cluster, http: aiohttp.ClientSession) -> None:
    api = await registered(http, nginx_of(proxied), "logged")
    ticket = (await api.ticket()).ticket
    async with http.ws_connect(f"/ws/gateway1?ticket={ticket}", protocols=(SUBPROTOCOL,)) as ws:
        assert (await ws.receive_json())["type"] == "hello"
    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
        await http.ws_connect(f"/ws?ticket={ticket}", protocols=(SUBPROTOCOL,))
    headers = {"Authorization": f"Bearer {api.token}"}
    async with http.get("/api/v1/search/messages", params={"q": "privateword"}, headers=headers) as answer:
        assert answer.status == 200
        request_id = answer.headers["X-Request-Id"]
    line = await logged(proxied, request_id)
    assert line["url.path"] == "/api/v1/search/messages"
    # Each worker of Nginx writes its own lines once a second.
    async with asyncio.timeout(10):
        while "/ws/gateway1" not in (written := logs_of(nginx_of(proxied))):
            await asyncio.sleep(0.05)
    assert not [secret for secret in (ticket, "privateword", api.token or "") if secret in written]


@pytest.mark.parametrize(("origin", "status"), [("https://evil.example", 403), (None, 403), ("", 101)])
async def test_only_our_own_pages_open_sockets_with_the_cookie(
    proxied: Cluster, origin: str | None, status: int
) -> None:
    nginx = nginx_of(proxied)
    connector = aiohttp.TCPConnector(ssl=trusting(nginx))
    async with aiohttp.ClientSession(nginx.url, connector=connector) as browser:
        async with browser.get("/register") as answer:
            csrf = (await answer.text()).partition('name="csrf" value="')[2].partition('"')[0]
        fields = {"csrf": csrf, "username": f"cookie{status}{len(origin or 'x')}", "password": PASSWORD}
        async with browser.post("/register", data=fields) as answer:
            assert answer.url.path == "/", await answer.text()
        headers = {} if origin is None else {"Origin": origin or nginx.url}
        try:
            async with browser.ws_connect("/ws", headers=headers, protocols=(SUBPROTOCOL,)) as ws:
                assert (await ws.receive_json())["type"] == "hello"
                got = 101
        except aiohttp.WSServerHandshakeError as error:
            got = error.status
        assert got == status
