"""Text is text: in names, groups, messages and links, nothing runs and the browser's policy is never touched."""

import aiohttp
from playwright.async_api import expect

from tests.e2e.api import register
from tests.e2e.conftest import NewPerson
from tests.e2e.payloads import PAYLOADS
from tests.faults.process import ServerProcess

GROUP_NAME_MAX, DISPLAY_NAME_MAX = 50, 40
NAMES = 25
"""Of each kind: short payloads, as many as fit on a screen."""


def normal(text: str) -> str:
    """Without the characters that a page shows as blanks or not at all."""
    return " ".join(text.replace("\x01", " ").split())


async def test_no_payload_runs_anywhere(new_person: NewPerson, server: ServerProcess) -> None:
    ann = await new_person("Ann")
    async with aiohttp.ClientSession() as http:
        mallory = await register(server.url, http)
        group_id = await mallory.create_group("<img src=x onerror=alert(1)>")
        await mallory.call("PATCH", f"/groups/{group_id}", {"announcement": "<svg onload=alert(1)>"})
        short = [
            payload for payload in PAYLOADS if "\t" not in payload and "\x01" not in payload and "\u200b" not in payload
        ]
        for name in [payload for payload in short if len(payload) <= DISPLAY_NAME_MAX][:NAMES]:
            somebody = await register(server.url, http, name)
            await somebody.call("POST", f"/groups/{group_id}/join", {})
            await somebody.say(group_id, name)
        others = [payload for payload in short if len(payload) <= GROUP_NAME_MAX][:NAMES]
        for name in others:
            await mallory.create_group(name)
        code = (await mallory.call("POST", f"/groups/{group_id}/invite"))["code"]
        await ann.join(f"{server.url}/#/join/{group_id}/{code}")
        for payload in PAYLOADS:
            await mallory.say(group_id, payload)
    await ann.page.locator("article[data-seq]").filter(has_text="click").last.wait_for()
    # As text, each of them, from the newest to the oldest.
    seen: set[str] = set()
    scroller = ann.page.locator(".scroller")
    for _ in range(200):
        seen |= {normal(text) for text in await ann.texts()}
        if await ann.page.get_by_text("This is the beginning of").count():
            break
        await scroller.evaluate("(element) => element.scrollBy(0, -500)")
        await ann.page.wait_for_timeout(30)
    assert {normal(payload) for payload in PAYLOADS} <= seen
    # Links lead to http and https only, and tell the other side nothing of this page.
    for link in await ann.page.locator("article a").all():
        assert (await link.get_attribute("href") or "").lower().startswith(("http://", "https://"))
        assert "noopener" in (await link.get_attribute("rel") or "")
    await ann.button("Members").click()
    await expect(ann.page.locator(".members li")).to_have_count(NAMES + 2)
    await ann.button("About this group").click()
    await ann.dialog.get_by_role("button", name="Close", exact=True).click()
    await ann.button("Discover").click()
    await ann.dialog.get_by_role("searchbox").fill("<")
    await expect(ann.dialog.locator("li").first).to_be_visible()
    await ann.check_policy()


async def test_addresses_that_lead_nowhere_are_harmless(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    for fragment in (
        "#/join/1/<img src=x onerror=alert(1)>",
        "#javascript:alert(1)",
        "#/g/999999999999999999",
        "#/g/1/2",
    ):
        await ann.page.goto(f"{ann.url}/{fragment}")
        await expect(ann.page.get_by_role("navigation", name="Groups")).to_be_visible()
        await expect(ann.page.locator("article")).to_have_count(0)
    await ann.check_policy()
