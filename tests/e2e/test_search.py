"""Search, in Chinese and English, and the way to where something was said."""

from urllib.parse import parse_qs, urlsplit

import aiohttp
from playwright.async_api import Route, expect

from tests.e2e.api import register
from tests.e2e.conftest import NewPerson
from tests.e2e.person import PHONE
from tests.faults.process import ServerProcess

MANY = 150
FULL = 7


async def test_from_a_word_to_the_place_where_it_was_said(new_person: NewPerson, server: ServerProcess) -> None:
    ann = await new_person("Ann")
    async with aiohttp.ClientSession() as http:
        writer = await register(server.url, http, "Writer")
        group_id = await writer.create_group("Archive")
        await writer.call("POST", f"/groups/{await writer.create_group('Elsewhere')}/messages", {
            "client_msg_id": "6d1c0f3e-7a53-4a9e-9d2f-3b6b6f0d9c11", "kind": "text", "body": "喜鹊在别处",
        })  # fmt: skip
        await writer.say(group_id, "今天早上看到一只喜鹊,非常漂亮")
        await writer.say(group_id, "The quarterly report is ready")
        for number in range(MANY):
            await writer.say(group_id, f"filler {number}")
        code = (await writer.call("POST", f"/groups/{group_id}/invite"))["code"]
        await ann.join(f"{server.url}/#/join/{group_id}/{code}")
    await ann.sees(f"filler {MANY - 1}")
    await ann.page.keyboard.press("Control+k")
    field = ann.page.get_by_role("searchbox", name="Search messages")
    await expect(field).to_be_focused()
    results = ann.page.locator(".results li")
    await field.fill("喜鹊")
    # What was said where she is not a member is not found.
    await expect(results).to_have_count(1)
    await expect(results.locator("mark")).to_have_text("喜鹊")
    await field.fill("quart rep")
    await expect(results.locator("mark")).to_have_text(["quart", "rep"])
    await ann.check_axe()
    await results.get_by_role("link").click()
    found = ann.page.locator("article.found")
    await expect(found).to_contain_text("The quarterly report")
    await expect(found).to_be_in_viewport()
    assert "filler 0" in "".join(await ann.texts())
    await ann.button("Jump to latest").click()
    await ann.sees(f"filler {MANY - 1}")
    await field.fill("nothing like that")
    await expect(ann.page.get_by_text("Nothing found")).to_be_visible()
    await field.fill("filler")
    await expect(ann.page.get_by_text("20+ results")).to_be_visible()
    await ann.button("Show more").click()
    await expect(results).to_have_count(40)
    await ann.page.keyboard.press("Escape")
    await expect(field).to_have_count(0)


async def test_in_one_group_or_in_all(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    for name in ("Kitchen", "Cellar"):
        await ann.create_group(name)
        await ann.say(f"the lamp in the {name.lower()} flickers")
        await ann.sees("flickers")
    await ann.button("Search").first.click()
    await ann.page.get_by_role("searchbox", name="Search messages").fill("lamp")
    results, here = ann.page.locator(".results li"), ann.page.get_by_label("Only in this group")
    await expect(results.locator(".where .name")).to_have_text(["Cellar", "Kitchen"])
    await here.check()
    await expect(results.locator(".where .name")).to_have_text(["Cellar"])
    await ann.group_row("Kitchen").click()
    # "This group" is the one on screen.
    await expect(results.locator(".where .name")).to_have_text(["Kitchen"])
    await here.uncheck()
    await expect(results).to_have_count(2)


async def test_on_a_phone_a_result_shows_the_conversation(new_person: NewPerson) -> None:
    ann = await new_person("Ann", viewport=PHONE, has_touch=True)
    await ann.create_group("Pocket")
    await ann.say("一条可以找到的消息")
    await ann.sees("一条可以找到的消息")
    await ann.button("Search").click()
    await ann.page.get_by_role("searchbox", name="Search messages").fill("找到")
    await ann.page.locator(".results a").first.click()
    await expect(ann.page.locator("article.found")).to_be_in_viewport()


async def test_searching_carelessly(new_person: NewPerson, server: ServerProcess) -> None:
    ann = await new_person("Ann")
    group = await ann.create_group("Careless")
    async with aiohttp.ClientSession() as http:
        bot = await register(server.url, http)
        await bot.call("POST", f"/groups/{group}/join", {})
        for number in range(150):
            await bot.say(group, f"line {number}")
    await ann.sees("line 149")
    await ann.page.keyboard.press("Control+k")
    field = ann.page.get_by_role("searchbox", name="Search messages")
    results = ann.page.locator(".results a")
    await field.fill('"line 30"')
    await results.click()
    await ann.sees("line 30")
    await ann.button("Jump to latest").click()
    await expect(ann.message("line 30")).to_have_count(0)
    # The same result once more leads there once more, though the address has been the same.
    await ann.page.go_back()
    await ann.sees("line 30")
    await ann.page.locator(".scroller").evaluate("(element) => { element.scrollTop = element.scrollHeight; }")
    await expect(ann.message("line 30")).to_have_count(0)
    await results.click()
    await ann.sees("line 30")
    # A quote that was only begun asks for nothing yet: no old results, no reproach.
    ann.expected.append("422")
    await field.fill('"')
    await expect(ann.page.locator(".search .hint")).to_contain_text("finds a phrase")
    await expect(ann.page.locator(".search .failure")).to_be_empty()
    await expect(results).to_have_count(0)
    # Where there is no such message, the newest ones are shown.
    await ann.page.goto(f"{ann.url}/#/g/{group}/99999")
    await ann.sees("line 149")
    await expect(ann.button("Jump to latest")).to_have_count(0)


async def test_more_of_an_older_query_is_not_mixed_into_a_newer_one(
    new_person: NewPerson, server: ServerProcess
) -> None:
    ann = await new_person("Ann")
    group = await ann.create_group("Mixed")
    async with aiohttp.ClientSession() as http:
        bot = await register(server.url, http)
        await bot.call("POST", f"/groups/{group}/join", {})
        for number in range(25):
            await bot.say(group, f"old {number}")
        await bot.say(group, "new")
    late: list[Route] = []

    async def hold(route: Route) -> None:
        late.append(route)

    await ann.page.route("**/search/messages?*before=*", hold)
    await ann.page.keyboard.press("Control+k")
    field = ann.page.get_by_role("searchbox", name="Search messages")
    results = ann.page.locator(".results a")
    await field.fill("old")
    await expect(results).to_have_count(20)
    await ann.button("Show more").click()
    await field.fill("new")
    await expect(results).to_have_count(1)
    async with ann.page.expect_response("**/search/messages?*before=*"):
        await late[0].continue_()
    await expect(results).to_have_count(1)


async def test_empty_pages_are_gone_through(new_person: NewPerson) -> None:
    """The server may look through many messages in vain; `next` alone tells the end."""
    ann = await new_person("Ann")
    await ann.create_group("Haystack")
    await ann.say("a needle")
    await ann.sees("a needle")
    asked: list[str | None] = []

    async def answer(route: Route) -> None:
        (before,) = parse_qs(urlsplit(route.request.url).query).get("before", [None])
        asked.append(before)
        if len(asked) < FULL:
            await route.fulfill(json={"items": [], "next": str(1000 - len(asked))})
        else:
            await route.continue_(url=route.request.url.replace(f"before={before}", f"before={2**63 - 1}"))

    await ann.page.route("**/search/messages?*", answer)
    await ann.page.keyboard.press("Control+k")
    await ann.page.get_by_role("searchbox", name="Search messages").fill("needle")
    # Five at once; then the reader decides.
    await expect(ann.page.get_by_text("Nothing found so far")).to_be_visible()
    assert asked == [None, "999", "998", "997", "996"]
    await ann.button("Show more").click()
    await expect(ann.page.locator(".results mark")).to_have_text("needle")
    assert asked[5:] == ["995", "994"]
    await expect(ann.button("Show more")).to_have_count(0)
