"""How the built web app is served; a small stand-in for it lies in a folder of the test."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from app.errors import ConfigError
from app.web.web_app import WebApp
from tests.running import Server, serving, settings_for

SCRIPT = "console.log('hello');\n" * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text('<!doctype html><html lang="en"><script src="/assets/a-1.js"></script></html>')
    (tmp_path / "assets" / "a-1.js").write_text(SCRIPT)
    (tmp_path / "assets" / "font-2.woff2").write_bytes(b"\x00font")
    (tmp_path / "secret.txt").write_text("not to be served")
    return tmp_path


@pytest.fixture
async def server(dsn: str, redis_url: str, folder: Path) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url, http={"web_folder": str(folder)})) as server:
        yield server


@pytest.fixture
async def browser(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    """Logged in."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(f"{server.url}/register") as response:
            csrf = (await response.text()).partition('name="csrf" value="')[2].partition('"')[0]
        fields = {"csrf": csrf, "username": "ann", "password": "secret123"}
        async with session.post(f"{server.url}/register", data=fields) as response:
            assert response.url.path == "/"
        yield session


async def test_the_page_is_for_who_is_logged_in(server: Server, browser: aiohttp.ClientSession) -> None:
    async with browser.get(f"{server.url}/") as response:
        assert "/assets/a-1.js" in await response.text()
        assert response.headers["Cache-Control"] == "no-cache"
        assert "trusted-types 'none'" in response.headers["Content-Security-Policy"]
    async with server.http.get(f"{server.url}/", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (303, "/login")


async def test_the_page_has_the_language_that_was_chosen(server: Server, browser: aiohttp.ClientSession) -> None:
    async with browser.get(f"{server.url}/?lang=zh") as response:
        assert response.url.query_string == ""
        assert '<html lang="zh' in await response.text()
    async with browser.get(f"{server.url}/") as response:
        assert '<html lang="zh' in await response.text()


async def test_assets_are_small_and_kept(server: Server) -> None:
    url = f"{server.url}/assets/a-1.js"
    async with server.http.get(url, auto_decompress=False) as response:
        assert response.headers["Content-Type"].startswith("text/javascript")
        assert "immutable" in response.headers["Cache-Control"]
        assert gzip.decompress(await response.read()).decode() == SCRIPT
        etag = response.headers["ETag"]
    async with server.http.get(url, headers={"If-None-Match": etag}) as response:
        assert response.status == 304
    async with server.http.get(url, headers={"Accept-Encoding": "identity"}) as response:
        assert await response.text() == SCRIPT
    async with server.http.get(f"{server.url}/assets/font-2.woff2") as response:
        assert (await response.read(), response.content_type) == (b"\x00font", "font/woff2")


@pytest.mark.parametrize("path", ["../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "", "a-2.js", "index.html"])
async def test_nothing_else_is_served(server: Server, path: str) -> None:
    async with server.http.get(f"{server.url}/assets/{path}") as response:
        assert response.status == 404


def test_a_folder_of_something_else_is_refused(folder: Path) -> None:
    (folder / "index.html").write_text("<html>")
    with pytest.raises(ConfigError, match="make run"):
        WebApp.find(folder)


def test_without_a_build_there_is_none(tmp_path: Path) -> None:
    assert WebApp.find(tmp_path) is None
    assert WebApp.find(None) is None
