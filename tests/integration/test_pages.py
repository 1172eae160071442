"""The pages, as a browser without scripts uses them."""

import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.running import PASSWORD, Server, serving, settings_for


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url)) as server:
        yield server


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    # Cookies of IP addresses are kept only on request.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def token_of(browser: aiohttp.ClientSession, url: str) -> str:
    async with browser.get(url) as response:
        found = re.search(r'name="csrf" value="([^"]+)"', await response.text())
        assert found
        return found[1]


def session_cookie(browser: aiohttp.ClientSession) -> str:
    return next(cookie.value for cookie in browser.cookie_jar if cookie.key == "magpie")


async def submit(browser: aiohttp.ClientSession, server: Server, form: str, **fields: str) -> tuple[int, str, str]:
    fields.setdefault("csrf", await token_of(browser, f"{server.url}/{form}"))
    async with browser.post(f"{server.url}/{form}", data=fields) as response:
        return response.status, response.url.path, await response.text()


async def test_register_look_around_log_out(server: Server, browser: aiohttp.ClientSession) -> None:
    async with browser.get(f"{server.url}/") as response:
        assert response.url.path == "/login"
        assert "HttpOnly" in response.headers["Set-Cookie"]
        assert "SameSite=Lax" in response.headers["Set-Cookie"]
    before = session_cookie(browser)
    status, path, page = await submit(browser, server, "register", username="ann_1", password=PASSWORD)
    assert (status, path) == (200, "/")
    assert "ann_1" in page
    assert session_cookie(browser) != before
    csrf = await token_of(browser, f"{server.url}/")
    async with browser.post(f"{server.url}/logout", data={"csrf": "wrong"}) as response:
        assert response.status == 403
    after = session_cookie(browser)
    async with browser.post(f"{server.url}/logout", data={"csrf": csrf}) as response:
        assert response.url.path == "/login"
    async with server.http.get(f"{server.url}/api/v1/me", headers={"Cookie": f"magpie={after}"}) as response:
        assert response.status == 401
    async with server.http.get(f"{server.url}/api/v1/me", headers={"Cookie": f"magpie={before}"}) as response:
        assert response.status == 401


async def test_a_new_login_ends_the_session_it_replaces(server: Server, browser: aiohttp.ClientSession) -> None:
    await submit(browser, server, "register", username="ann_1", password=PASSWORD)
    copied = {"Cookie": f"magpie={session_cookie(browser)}"}

    async def status_of_copy() -> int:
        async with server.http.get(f"{server.url}/api/v1/me", headers=copied) as response:
            return response.status

    await submit(browser, server, "login", username="ann_1", password="wrong1wrong")
    assert await status_of_copy() == 200
    status, path, _ = await submit(browser, server, "login", username="ann_1", password=PASSWORD)
    assert (status, path) == (200, "/")
    assert await status_of_copy() == 401
    async with browser.get(f"{server.url}/api/v1/me") as response:
        assert response.status == 200


async def test_errors_stand_at_their_field_and_the_password_is_not_repeated(
    server: Server, browser: aiohttp.ClientSession
) -> None:
    status, _, page = await submit(browser, server, "register", username="no good", password=PASSWORD)
    assert status == 422
    assert 'value="no good"' in page
    assert "Use 3 to 20 letters" in page
    assert PASSWORD not in page
    await server.user("taken_1")
    status, _, page = await submit(browser, server, "register", username="TAKEN_1", password=PASSWORD)
    assert (status, "This username is taken" in page) == (409, True)
    status, _, page = await submit(browser, server, "login", username="taken_1", password="wrong-one-1")
    assert (status, "Username or password is wrong" in page) == (401, True)
    status, path, _ = await submit(browser, server, "login", username="taken_1", password=PASSWORD)
    assert (status, path) == (200, "/")


async def test_a_form_without_its_token_is_refused(server: Server, browser: aiohttp.ClientSession) -> None:
    await server.user("victim_1")
    for csrf in ("", "wrong"):
        status, path, _ = await submit(browser, server, "login", username="victim_1", password=PASSWORD, csrf=csrf)
        assert (status, path) == (403, "/login")


async def test_both_languages(server: Server, browser: aiohttp.ClientSession) -> None:
    async with browser.get(f"{server.url}/login", headers={"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}) as response:
        assert 'lang="zh-Hans"' in await response.text()
    async with browser.get(f"{server.url}/login?lang=en", headers={"Accept-Language": "zh"}) as response:
        assert "Log in" in await response.text()
    async with browser.get(f"{server.url}/login", headers={"Accept-Language": "zh"}) as response:
        assert "Log in" in await response.text()


async def test_names_are_text_never_markup(server: Server, browser: aiohttp.ClientSession) -> None:
    payload = "<img src=x onerror=alert(1)>"
    status, _, page = await submit(browser, server, "register", username=payload[:20], password=PASSWORD)
    assert status == 422
    assert "<img src=x" not in page
    await submit(browser, server, "register", username="xss_1", password=PASSWORD)
    csrf = {"X-CSRF-Token": await token_of(browser, f"{server.url}/")}
    group = {"name": payload, "visibility": "open"}
    async with browser.post(f"{server.url}/api/v1/groups", json=group, headers=csrf) as response:
        assert response.status == 201
    async with browser.get(f"{server.url}/") as response:
        page = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert payload not in page
    assert "&lt;img src=x" in page
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


async def test_the_cookie_alone_changes_nothing(server: Server, browser: aiohttp.ClientSession) -> None:
    await submit(browser, server, "register", username="cookie_1", password=PASSWORD)
    url, group = f"{server.url}/api/v1/groups", {"name": "g", "visibility": "open"}
    csrf = {"X-CSRF-Token": await token_of(browser, f"{server.url}/")}
    for headers, expected in (
        ({}, 403),
        ({"X-CSRF-Token": "wrong"}, 403),
        (csrf | {"Origin": "https://evil.example"}, 403),
        (csrf, 201),
    ):
        async with browser.post(url, json=group, headers=headers) as response:
            assert response.status == expected
