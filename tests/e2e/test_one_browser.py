"""What a browser brings with it: several tabs, other users, a way back, a wrong clock."""

import re
from contextlib import suppress

from playwright.async_api import Error, Route, expect

from tests.e2e.conftest import WITH_WEB, NewPerson
from tests.e2e.person import PASSWORD, WITHOUT_SERVER, Person
from tests.faults.process import a_server

HOUR_MS = 3_600_000


async def go_offline(person: Person) -> None:
    person.expected += WITHOUT_SERVER
    await person.context.set_offline(True)
    # The connection that is open is closed by the page's own doubt of it.
    await person.page.evaluate("dispatchEvent(new Event('online'))")
    await expect(person.page.get_by_text("No connection.")).to_be_visible(timeout=15_000)


async def go_online(person: Person) -> None:
    await person.context.set_offline(False)
    # Where somebody else has logged in the page notices by itself, and may be leaving already.
    with suppress(Error):
        await person.page.evaluate("dispatchEvent(new Event('online'))")


async def test_nothing_is_sent_under_the_name_of_who_logged_in_later(new_person: NewPerson) -> None:
    ann, bob = await new_person("Ann"), await new_person("Bob")
    await ann.create_group("Desk")
    await bob.join(await ann.invite_link())
    await go_offline(ann)
    await ann.say("written by Ann")
    # In another tab of this browser Ann logs out and Bob logs in.
    await ann.context.add_cookies(await bob.context.cookies())  # type: ignore[arg-type]  # what it gives is what it takes
    async with ann.page.expect_event("load"):
        await go_online(ann)
    await bob.say("written by Bob")
    await ann.sees("written by Bob")
    assert await ann.texts() == await bob.texts() == ["written by Bob"]


async def test_a_new_session_in_another_tab_is_taken_over(new_person: NewPerson) -> None:
    ann, other = await new_person("Ann"), await new_person("Other", registered=False)
    await go_offline(ann)
    await other.page.goto(other.url + "/login")
    await other.page.locator("#username").fill(ann.username)
    await other.page.locator("#password").fill(PASSWORD)
    await other.page.locator("form button").click()
    await other.connected()
    await ann.context.add_cookies(await other.context.cookies())  # type: ignore[arg-type]  # what it gives is what it takes
    await go_online(ann)
    await expect(ann.page.get_by_text("No connection.")).to_have_count(0)
    await ann.create_group("With the token of the new session")


async def test_logging_out_leaves_nothing_even_when_its_answer_is_lost(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    await ann.create_group("Diary")
    await ann.composer.fill("a secret")
    lost: list[Route] = []

    async def lose(route: Route) -> None:
        lost.append(route)
        await route.fetch()

    await ann.page.route("**/auth/logout", lose)
    await ann.button("Profile and settings").click()
    await ann.button("Log out").click()
    await ann.page.wait_for_url(re.compile("/login"))
    with suppress(Error):
        # The page that asked is gone.
        await lost[0].abort()
    kept = await ann.page.evaluate("Object.keys(localStorage).filter((key) => !key.startsWith('magpie:page:'))")
    assert kept == []


async def test_the_way_back_does_not_change_what_a_dialog_is_about(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    await ann.create_group("Alpha")
    await ann.create_group("Beta")
    await ann.button("About this group").click()
    await expect(ann.dialog.get_by_label("Name")).to_have_value("Beta")
    await ann.page.go_back()
    await ann.page.get_by_role("textbox", name="Message Alpha", exact=True).wait_for()
    await expect(ann.dialog).to_have_count(0)
    await ann.button("About this group").click()
    await expect(ann.dialog.get_by_label("Name")).to_have_value("Alpha")


async def test_a_wrong_clock_neither_shortens_nor_lifts_a_mute(new_person: NewPerson) -> None:
    ann, bob = await new_person("Ann"), await new_person("Bob")
    for person, wrong_by in ((ann, -2 * HOUR_MS), (bob, 2 * HOUR_MS)):
        await person.context.add_init_script(f"{{ const now = Date.now; Date.now = () => now() + {wrong_by}; }}")
        await person.page.reload()
        await person.connected()
    await ann.create_group("Clocks")
    await bob.join(await ann.invite_link())
    await ann.button("Members").click()
    await ann.button(f"Options for {bob.username}").click()
    await ann.button("1 hour").click()
    await expect(bob.page.get_by_text("You are muted until")).to_be_visible()
    await expect(ann.page.locator(".members li").filter(has_text=bob.username)).to_contain_text("Muted")


async def test_a_lost_connection_is_said_once_and_not_every_second(new_person: NewPerson) -> None:
    ann = await new_person("Ann")
    await go_offline(ann)
    status = ann.page.locator(".connection[role=status]")
    await expect(status.get_by_text("The connection is lost. Trying again.")).to_be_attached()
    await expect(status.locator("[aria-hidden=true]")).to_contain_text("No connection.")
    await ann.check_axe()


async def test_of_two_tabs_the_newest_stays_until_a_person_wants_the_other(new_person: NewPerson) -> None:
    async with a_server() as server:
        await server.start(**WITH_WEB, IM_GATEWAY__DEVICES="newest")
        ann = await new_person("Ann", url=server.url)
        await ann.create_group("One at a time")
        second = await ann.context.new_page()
        sockets: list[str] = []
        for page in (ann.page, second):
            page.on("websocket", lambda socket: sockets.append(socket.url))
        await second.goto(ann.page.url)
        elsewhere = "You are connected on another device or in another window."
        await expect(ann.page.get_by_text(elsewhere)).to_be_visible()
        # A page that is looked at again takes nothing away from the other by itself.
        await ann.page.evaluate("dispatchEvent(new Event('online'))")
        await ann.check_axe()
        await second.locator(".composer textarea").fill("from the second")
        await second.locator(".composer textarea").press("Enter")
        await second.locator("article[data-seq]").wait_for()
        assert len(sockets) == 1
        await ann.button("Use it here").click()
        await ann.sees("from the second")
        await expect(ann.page.get_by_text(elsewhere)).to_have_count(0)
        await expect(second.get_by_text(elsewhere)).to_be_visible()
        await ann.say("from the first")
        await ann.sees("from the first")
        assert len(sockets) == 2
        # The server ends before the window is closed.
        ann.expected += WITHOUT_SERVER
        await second.close()
