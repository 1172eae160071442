"""Finding groups, keeping up with many messages, and what owners decide."""

import re
from pathlib import Path

import aiohttp
from playwright.async_api import expect

from tests.e2e.api import register
from tests.e2e.conftest import SHOTS, WITH_WEB, NewPerson
from tests.e2e.person import PHONE, WITHOUT_SERVER
from tests.faults.process import ServerProcess, a_server

MANY = 130
NOTIFIED = """
window.notified = [];
window.Notification = class {
  static permission = "granted";
  static requestPermission = async () => "granted";
  constructor(title, options) { window.notified.push(`${title}: ${options.body}`); }
};
"""


async def test_newcomers_find_a_group_and_what_was_missed(new_person: NewPerson, server: ServerProcess) -> None:
    ann = await new_person("Ann")
    await expect(ann.page.get_by_role("heading", name="No groups yet")).to_be_visible()
    async with aiohttp.ClientSession() as http:
        writer = await register(server.url, http, "Writer")
        group_id = await writer.create_group("Lighthouse")
        await ann.button("Find open groups").click()
        await ann.dialog.get_by_role("searchbox").fill("lightho")
        await ann.dialog.get_by_role("button", name="Join Lighthouse").click()
        await ann.composer.wait_for()
        await ann.create_group("Elsewhere")
        for number in range(MANY):
            await writer.say(group_id, f"wave {number}")
    row = ann.group_row("Lighthouse")
    await expect(row).to_contain_text(f"Writer: wave {MANY - 1}")
    await expect(row.locator(".badge")).to_contain_text("99+ unread")
    await expect(ann.page).to_have_title("(99+) Elsewhere · Magpie")
    await row.click()
    # The newest page is read; above it there is more, below it what is new counts down.
    scroller = ann.page.locator(".scroller")
    await ann.page.locator("article[data-seq]").first.wait_for()
    await scroller.evaluate("(element) => element.scrollTo(0, 0)")
    latest = ann.page.locator(".to-latest")
    await expect(latest).to_have_text(re.compile(r"^\d+ new messages$"))
    await ann.check_axe()
    await latest.click()
    await ann.sees(f"wave {MANY - 1}")
    await expect(row.locator(".badge")).to_have_count(0)
    await expect(ann.page).to_have_title("Lighthouse · Magpie")
    # One of a row of messages has the name, the others stand below it.
    await expect(ann.page.locator("article.head")).to_have_count(await ann.page.locator("article.head .name").count())
    assert await ann.page.locator("article:not(.head)").count() > await ann.page.locator("article.head").count()


async def test_owners_decide_and_are_asked_first(new_person: NewPerson) -> None:
    ann, bob = await new_person("Ann"), await new_person("Bob")
    # Whoever is removed, or whose group ends, may be in the midst of reading about it.
    for person in (ann, bob):
        person.expected.append(f"404 (Not Found) at {person.url}/api/v1/groups/")
    await ann.create_group("Council")
    link = await ann.invite_link()
    await bob.join(link)
    await ann.button("Members").click()
    options = ann.page.get_by_role("button", name=f"Options for {bob.username}")
    member = ann.page.locator(".members li").filter(has_text=bob.username)
    await options.click()
    await ann.button("Make admin").click()
    await expect(member).to_contain_text("Admin")
    await options.click()
    await ann.button("Remove from group").click()
    await expect(ann.dialog).to_contain_text("They can join again.")
    await ann.dialog.get_by_role("button", name="Cancel").click()
    await expect(member).to_have_count(1)
    await ann.button("Remove from group").click()
    await ann.dialog.get_by_role("button", name="Remove from group").click()
    await expect(bob.page.get_by_text("You were removed from Council.")).to_be_visible()
    await bob.join(link)
    await options.click()
    await ann.button("Make owner").click()
    await ann.dialog.get_by_role("button", name="Make owner").click()
    await expect(member).to_contain_text("Owner")
    await bob.button("Profile and settings").click()
    await bob.dialog.get_by_label("Display name").fill("Bob the Third")
    await bob.button("Save").click()
    await bob.button("Close").click()
    await bob.say("I am called otherwise now")
    await expect(ann.page.locator("article").last).to_contain_text("I am called otherwise now")
    await expect(bob.page.locator("article.head .name").last).to_have_text("Bob the Third")
    # Names are read with the page; a new one is no event.
    await ann.page.reload()
    await expect(ann.page.locator("article.head .name").last).to_have_text("Bob the Third")
    await bob.button("About this group").click()
    await bob.button("Disband group").click()
    await expect(bob.dialog).to_contain_text("This cannot be undone.")
    await bob.dialog.get_by_role("button", name="Disband group").click()
    await expect(ann.page.get_by_text("Council was disbanded.")).to_be_visible()
    await expect(ann.group_row("Council")).to_have_count(0)


async def test_what_is_refused_stays_to_be_tried_again(new_person: NewPerson, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("cormorant\n")
    async with a_server() as server:
        await server.start(**WITH_WEB, IM_MODERATION__WORDS_FILE=str(words))
        ann = await new_person("Ann", url=server.url)
        ann.expected += WITHOUT_SERVER
        await ann.create_group("Birds")
        await ann.composer.press_sequentially("first line")
        await ann.composer.press("Shift+Enter")
        await ann.composer.press_sequentially("a cormorant")
        await ann.composer.press("Enter")
        failed = ann.page.locator("article.failed")
        await expect(failed).to_contain_text("Not sent · The message contains a word that is not allowed here.")
        await ann.page.screenshot(path=SHOTS / "refused.png")
        await ann.check_axe()
        await failed.get_by_role("button", name="Retry").click()
        await expect(failed).to_contain_text("Not sent")
        await failed.get_by_role("button", name="Discard").click()
        await expect(failed).to_have_count(0)
        assert await ann.texts() == []


async def test_on_a_phone_a_conversation_tells_that_there_is_no_connection(new_person: NewPerson) -> None:
    ann = await new_person("Ann", viewport=PHONE, has_touch=True)
    ann.expected += WITHOUT_SERVER
    await ann.create_group("Tunnel")
    await ann.context.set_offline(True)
    await ann.page.evaluate("dispatchEvent(new Event('online'))")
    await expect(ann.page.get_by_text("No connection.")).to_be_visible(timeout=15_000)
    await ann.say("later")
    await expect(ann.page.get_by_text("Sending…")).to_be_visible()
    await expect(ann.composer).to_be_in_viewport()
    await ann.page.screenshot(path=SHOTS / "no-connection-phone.png")
    await ann.context.set_offline(False)
    await ann.sees("later")
    await expect(ann.page.get_by_text("No connection.")).to_have_count(0)


async def test_notifications_are_for_those_who_want_them(new_person: NewPerson, server: ServerProcess) -> None:
    ann = await new_person("Ann", registered=False)
    await ann.context.add_init_script(NOTIFIED)
    await ann.register()
    group_id = await ann.create_group("Bell")
    await ann.page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
    async with aiohttp.ClientSession() as http:
        writer = await register(server.url, http, "Writer")
        await writer.call("POST", f"/groups/{group_id}/join", {})
        await writer.say(group_id, "unasked")
        await ann.sees("unasked")
        assert await ann.page.evaluate("window.notified") == []
        await ann.button("Profile and settings").click()
        await ann.dialog.get_by_role("checkbox").check()
        await ann.button("Close").click()
        await writer.say(group_id, "ding")
        await ann.sees("ding")
    assert await ann.page.evaluate("window.notified") == ["Bell: Writer: ding"]
