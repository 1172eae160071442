"""People talk."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

from playwright.async_api import Route, expect

from tests.e2e.conftest import NewPerson
from tests.e2e.person import PHONE


async def test_from_registering_to_talking(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    await ann.create_group("Tea club", everybody=False)
    link = await ann.invite_link()
    # Invited people come with the link, and have no account yet: it must survive the way through both forms.
    bob = await new_person("Bob", registered=False, viewport=PHONE)
    bob.expected.append("status of 422")
    await bob.page.goto(link)
    await bob.page.get_by_role("link", name="Create an account").click()
    await bob.page.locator("#username").fill(bob.username)
    await bob.page.locator("#password").fill("no")
    await bob.page.locator("form button").click()
    await bob.page.locator("#password").fill("secret123")
    await bob.page.locator("form button").click()
    await bob.dialog.get_by_role("button", name="Join", exact=True).click()
    await bob.composer.wait_for()
    await ann.say("Welcome, Bob!")
    await bob.sees("Welcome, Bob!")
    await bob.say("你好,大家好\nsecond line")
    await ann.sees("second line")
    assert await ann.texts() == await bob.texts() == ["Welcome, Bob!", "你好,大家好\nsecond line"]
    await expect(ann.page.get_by_role("button", name="2 members")).to_be_visible()


async def test_who_joins_while_the_list_of_groups_is_read_stays_in(new_person: NewPerson) -> None:
    ann, bob = await new_person("Ann"), await new_person("Bob")
    await ann.create_group("Tea club", everybody=False)
    link = await ann.invite_link()
    joined = asyncio.Event()

    async def answer_late(route: Route) -> None:
        response = await route.fetch()
        await joined.wait()
        await route.fulfill(response=response)

    await bob.page.route("**/api/v1/groups?*", answer_late)
    await bob.page.goto(link)
    await bob.page.reload()
    await bob.dialog.get_by_role("button", name="Join", exact=True).click()
    await bob.composer.wait_for()
    async with bob.page.expect_response("**/api/v1/groups?*"):
        joined.set()
    await ann.say("Welcome, Bob!")
    await bob.sees("Welcome, Bob!")
    await expect(bob.composer).to_be_visible()


async def test_unread_typing_and_drafts(new_person: NewPerson) -> None:
    ann, bob = await new_person("Ann"), await new_person("Bob")
    await ann.create_group("First")
    link = await ann.invite_link()
    await bob.join(link)
    await bob.create_group("Second")
    await bob.composer.fill("half a thought")
    await ann.composer.press_sequentially("He")
    await ann.composer.fill("")
    for number in range(3):
        await ann.say(f"news {number}")
    row = bob.group_row("First")
    await expect(row.locator(".badge")).to_contain_text("3 unread")
    await expect(row).to_contain_text("news 2")
    await expect(bob.page).to_have_title("(3) Second · Magpie")
    # The latest activity is on top.
    await expect(bob.page.locator(".group-row").first).to_contain_text("First")
    await row.click()
    await bob.sees("news 2")
    await expect(bob.page.get_by_text("New", exact=True)).to_be_visible()
    await expect(row.locator(".badge")).to_have_count(0)
    await ann.composer.press_sequentially("typing")
    await expect(bob.page.get_by_text("is typing…")).to_be_visible()
    await bob.group_row("Second").click()
    await expect(bob.composer).to_have_value("half a thought")
    await bob.page.reload()
    await expect(bob.composer).to_have_value("half a thought")


async def test_days_stand_between_messages(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    await ann.page.clock.install()
    await ann.create_group("Diary")
    await ann.say("now")
    await ann.sees("now")
    days = ann.page.locator(".day")
    await expect(days).to_have_text(["Today"])
    for age, label in ((1, "Yesterday"), (3, re.compile(r" \d+$")), (400, re.compile(r", 20\d\d$"))):
        await ann.page.clock.set_fixed_time(datetime.now(UTC) + timedelta(days=age))
        await ann.page.reload()
        await ann.sees("now")
        await expect(days).to_have_text([label])


async def test_2000_characters_and_not_one_more(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    await ann.create_group("Long letters")
    await ann.composer.fill("字" * 2001)
    await expect(ann.page.get_by_text("1 character too many")).to_be_visible()
    await ann.composer.press("Enter")
    assert await ann.texts() == []
    await ann.composer.fill("😀" * 2000)
    await expect(ann.page.get_by_text("0 characters left")).to_be_visible()
    await ann.composer.press("Enter")
    await ann.sees("😀")
    assert await ann.texts() == ["😀" * 2000]


async def test_composing_chinese_does_not_send(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    await ann.create_group("输入法")
    await ann.composer.focus()
    devtools = await ann.context.new_cdp_session(ann.page)
    # The way of an input method: what is being composed, then Enter to take the letters as they are.
    await devtools.send("Input.imeSetComposition", {"text": "nihao", "selectionStart": 5, "selectionEnd": 5})
    enter = {
        "type": "rawKeyDown",
        "key": "Enter",
        "code": "Enter",
        "windowsVirtualKeyCode": 229,
        "nativeVirtualKeyCode": 229,
    }
    await devtools.send("Input.dispatchKeyEvent", enter)
    await expect(ann.composer).to_have_value("nihao")
    await devtools.send("Input.insertText", {"text": "你好"})
    await expect(ann.composer).to_have_value("你好")
    assert await ann.texts() == []
    await ann.composer.press("Enter")
    await ann.sees("你好")


async def test_what_admins_may_do(new_person: NewPerson) -> None:
    ann, bob = await new_person("Ann"), await new_person("Bob")
    await ann.create_group("Order")
    await bob.join(await ann.invite_link())
    await ann.button("Members").click()
    options = ann.page.get_by_role("button", name=f"Options for {bob.username}")
    await options.click()
    await ann.button("1 hour").click()
    await expect(bob.page.get_by_text("You are muted until")).to_be_visible()
    await options.click()
    await ann.button("Unmute").click()
    await expect(bob.composer).to_be_visible()
    await ann.button("About this group").click()
    await ann.dialog.get_by_label("Announcement").fill("Be kind.")
    await ann.button("Save").click()
    await ann.dialog.get_by_role("button", name="Close", exact=True).click()
    await expect(bob.page.get_by_text("Be kind.")).to_be_visible()
    await options.click()
    await ann.button("Ban").click()
    await expect(ann.dialog).to_contain_text("cannot join again")
    await ann.dialog.get_by_role("button", name="Ban", exact=True).click()
    await expect(bob.page.get_by_text("You were banned from Order.")).to_be_visible()
    await expect(bob.group_row("Order")).to_have_count(0)
    await expect(ann.page.get_by_role("button", name="1 member")).to_be_visible()


async def test_a_session_that_ends_elsewhere_leads_to_the_login_page(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    second = await ann.context.new_page()
    await second.goto(ann.url)
    await second.get_by_role("button", name="Profile and settings").click()
    await second.get_by_role("button", name="Log out").click()
    await second.wait_for_url("**/login*")
    await ann.page.wait_for_url("**/login*")
