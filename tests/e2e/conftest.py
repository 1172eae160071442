"""Tests with a real browser on real processes. Screenshots of all people stay in tests/e2e/shots."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.e2e.person import Person
from tests.faults.process import ServerProcess, a_server

SHOTS = Path(__file__).parent / "shots"
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]
"""As root there is no sandbox; and the browser itself asks nobody anything."""

NewPerson = Callable[..., Awaitable[Person]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One loop, one browser and one server for all tests here; the files are spread over two processes."""
    here = [item for item in items if "tests/e2e/" in item.nodeid]
    files = sorted({item.nodeid.partition("::")[0] for item in here})
    for item in here:
        item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
        item.add_marker(pytest.mark.xdist_group(f"browser{files.index(item.nodeid.partition('::')[0]) % 2}"))


def chromium() -> str:
    """Where a browser is. Skips without one, fails in CI."""
    for name in (os.environ.get("CHROMIUM", ""), "chromium", "google-chrome", "chromium-browser"):
        found = shutil.which(name) if name else None
        if found:
            return found
    reason = "no Chromium: scripts/browser says how to install one"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    executable = chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=CHROMIUM_OPTIONS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[ServerProcess]:
    """A server that no test harms."""
    async with a_server() as server:
        await server.start(**WITH_WEB)
        yield server


WITH_WEB = {"IM_HTTP__WEB_FOLDER": "frontend/dist", "IM_LOG__LEVEL": "info"}


@pytest_asyncio.fixture(loop_scope="session")
async def new_person(
    request: pytest.FixtureRequest, browser: Browser, server: ServerProcess
) -> AsyncIterator[NewPerson]:
    """Makes people, each with a browser of their own; at the end nobody may have seen an error."""
    people: list[Person] = []

    async def make(name: str, *, url: str | None = None, registered: bool = True, **options: Any) -> Person:
        person = await Person.arrive(browser, url or server.url, name, **options)
        people.append(person)
        if registered:
            await person.sign_up()
        return person

    yield make
    SHOTS.mkdir(exist_ok=True)
    for person in people:
        await person.shot(SHOTS / f"{request.node.name}-{person.name}.png".replace("/", "_"))
        await person.context.close()
    for person in people:
        assert person.problems == [], f"{person.name} met problems"
