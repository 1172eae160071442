"""Somebody in front of a browser: finds things by role and name, as people and screen readers do."""

import itertools
import os
import re
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self, cast

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Locator, Page, Request, expect

WAIT_MS = 15_000
"""A busy machine is no defect."""
expect.set_options(timeout=WAIT_MS)

DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
PASSWORD = "secret123"
AXE = Path(__file__).parents[2] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
WITHOUT_SERVER = (
    "net::ERR_CONNECTION_REFUSED",
    "net::ERR_INTERNET_DISCONNECTED",
    "WebSocket connection to",
    "net::ERR_EMPTY_RESPONSE",
    "ERR_CONNECTION_RESET",
)
"""What the browser itself says when there is no server."""

WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(
  `${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
window.ran = [];
window.alert = (text) => window.ran.push(text);
"""
_numbers = itertools.count(1)


class Person:
    """One user with one page. `problems` fills with whatever the browser complains about."""

    def __init__(self, context: BrowserContext, page: Page, url: str, name: str) -> None:
        self.context = context
        self.page = page
        self.url = url
        self.name = name
        self.username = f"{name[:8]}_{os.getpid() % 100_000}_{next(_numbers)}"
        self.problems: list[str] = []
        self.expected: list[str] = []
        """Parts of complaints that belong to what is tested."""
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.problems.append(f"error in the page: {error}"))
        page.on("request", self._on_request)

    @classmethod
    async def arrive(cls, browser: Browser, url: str, name: str, **options: Any) -> Self:
        """Open a browser window; `options` are Playwright's of a context (viewport, locale, color_scheme …)."""
        context = await browser.new_context(**{"viewport": DESKTOP, "locale": "en-US", **options})
        await context.add_init_script(WATCH)
        context.set_default_timeout(WAIT_MS)
        return cls(context, await context.new_page(), url, name)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        complaint = f"{message.text} at {message.location['url']}"
        if not any(known in complaint for known in self.expected):
            self.problems.append(f"{message.type} in the console: {complaint}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.url, self.url.replace("http", "ws", 1), "data:", "blob:")):
            self.problems.append(f"asked somebody else: {request.url}")

    async def register(self, *, at: str = "/register") -> None:
        """Through the page; `at` may carry a fragment. Afterwards the web app is there and has been connected."""
        await self.page.goto(self.url + at)
        await self.page.locator("#username").fill(self.username)
        await self.page.locator("#password").fill(PASSWORD)
        await self.page.locator("form button").click()
        await self.connected()

    async def sign_up(self) -> None:
        """The same without loading the page with the form, which costs as much as loading the web app."""
        address = f"{self.url}/register"
        shown = await (await self.context.request.get(address)).text()
        token = re.search(r'name="csrf" value="([^"]+)"', shown)
        assert token is not None, shown
        answer = await self.context.request.post(
            address, form={"username": self.username, "password": PASSWORD, "csrf": token[1]}, max_redirects=0
        )
        assert answer.status == HTTPStatus.SEE_OTHER, await answer.text()
        await self.page.goto(self.url)
        await self.connected()

    async def connected(self) -> None:
        """Wait until the groups are known, by the first connection of the page."""
        await self.page.locator(".sidebar").locator(".nothing, .group-row").first.wait_for(state="attached")

    # Finding things

    def button(self, name: str) -> Locator:
        """A button by its whole name."""
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def composer(self) -> Locator:
        """Where a message is written."""
        return self.page.locator(".composer textarea")

    @property
    def dialog(self) -> Locator:
        """The open dialog."""
        return self.page.get_by_role("dialog")

    def message(self, text: str) -> Locator:
        """A stored message with this text in it."""
        return self.page.locator("article[data-seq]").filter(has_text=text)

    def group_row(self, name: str) -> Locator:
        """A group in the list."""
        return self.page.locator(".group-row").filter(has_text=name)

    # Doing things

    async def create_group(self, name: str, *, everybody: bool = True) -> str:
        """Through the dialog; returns the group's id."""
        await self.button("New group").click()
        await self.dialog.get_by_label("Name").fill(name)
        if everybody:
            await self.dialog.get_by_label("Everybody can find and join it").check()
        await self.button("Create group").click()
        await self.page.get_by_role("textbox", name=f"Message {name}", exact=True).wait_for()
        return self.page.url.rpartition("/")[2]

    async def invite_link(self) -> str:
        """Of the open group."""
        await self.button("About this group").click()
        await self.button("Invite link").click()
        link = await self.dialog.get_by_label("Invite link").input_value()
        await self.button("Close").click()
        return link

    async def join(self, link: str, button: str = "Join") -> None:
        """Open an invite link and accept."""
        await self.page.goto(link)
        await self.dialog.get_by_role("button", name=button, exact=True).click()
        await self.composer.wait_for()

    async def say(self, text: str) -> None:
        """Write and send."""
        await self.composer.fill(text)
        await self.composer.press("Enter")

    async def sees(self, text: str, within_s: float = 15) -> None:
        """Wait until a message is there."""
        await self.message(text).first.wait_for(timeout=within_s * 1000)

    async def texts(self) -> list[str]:
        """The stored messages on screen, from top to bottom."""
        return await self.page.locator("article[data-seq] .content > p").all_inner_texts()

    # Looking closely

    async def check_axe(self) -> None:
        """No accessibility rule is violated on what is on screen."""
        await self.page.evaluate(AXE.read_text())
        found = cast(dict[str, Any], await self.page.evaluate("axe.run()"))
        for violation in found["violations"]:
            targets = [str(node["target"]) for node in violation["nodes"]]
            self.problems.append(f"axe: {violation['id']}: {violation['help']} at {', '.join(targets[:5])}")

    async def check_policy(self) -> None:
        """The browser reported nothing against the policy, and nothing foreign ran."""
        self.problems += [f"policy: {one}" for one in await self.page.evaluate("window.violations")]
        self.problems += [f"ran: {one}" for one in await self.page.evaluate("window.ran")]

    async def shot(self, path: Path) -> None:
        """What is on screen, also when the test has failed."""
        with suppress(Error):
            await self.page.screenshot(path=path)
            await self.check_policy()
