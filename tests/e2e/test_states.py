"""Dialogs and states that few people see, in both colour schemes: accessible, and kept as pictures."""

import aiohttp
import pytest
from playwright.async_api import expect

from tests.e2e.api import register
from tests.e2e.conftest import NewPerson
from tests.e2e.test_looks import look
from tests.faults.process import ServerProcess


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_dialog(new_person: NewPerson, server: ServerProcess, scheme: str) -> None:
    ann, bob = await new_person("Ann", color_scheme=scheme), await new_person("Bob", color_scheme=scheme)
    await ann.create_group("Council")
    link = await ann.invite_link()
    await ann.button("About this group").click()
    await ann.button("Invite link").click()
    await ann.dialog.get_by_label("Invite link").wait_for()
    await look(ann, f"invite-{scheme}")
    await ann.button("Disband group").click()
    await look(ann, f"disband-{scheme}")
    await ann.button("Cancel").click()
    await ann.button("Close").click()
    await bob.page.goto(link)
    await bob.dialog.get_by_role("button", name="Join", exact=True).wait_for()
    await look(bob, f"join-{scheme}")
    await bob.dialog.get_by_role("button", name="Join", exact=True).click()
    await bob.composer.wait_for()
    await bob.button("About this group").click()
    await look(bob, f"about-member-{scheme}")
    await bob.button("Leave group").click()
    await look(bob, f"leave-{scheme}")
    await bob.button("Cancel").click()
    await bob.button("Close").click()

    await ann.button("Members").click()
    await ann.button(f"Options for {bob.username}").click()
    await look(ann, f"member-{scheme}")
    for action in ("Make owner", "Remove from group", "Ban"):
        await ann.button(action).click()
        await ann.button("Cancel").wait_for()
        await look(ann, f"confirm-{action.split()[0].lower()}-{scheme}")
        await ann.button("Cancel").click()
    await ann.button("1 day").click()
    await expect(bob.page.get_by_text("You are muted until")).to_be_visible()
    await look(bob, f"muted-{scheme}")
    await ann.button(f"Options for {bob.username}").click()
    await look(ann, f"member-muted-{scheme}")
    await ann.button("Close").last.click()

    async with aiohttp.ClientSession() as http:
        writer = await register(server.url, http, "Writer")
        group = await writer.create_group("Open door")
        await writer.say(group, "come in")
        await ann.button("Discover").click()
        await ann.dialog.get_by_role("searchbox").fill("open do")
        await expect(ann.dialog.get_by_role("button", name="Join Open door").first).to_be_visible()
        await look(ann, f"discover-found-{scheme}")
        await ann.dialog.get_by_role("button", name="Join Open door").first.click()
        await ann.sees("come in")
        closed = await writer.create_group("Closed", "invite")
    await bob.page.goto(f"{bob.url}/#/join/{closed}/AAAAAAAAAAAAAAAA")
    bob.expected.append("404")
    await bob.dialog.get_by_role("button", name="Join", exact=True).click()
    await expect(bob.dialog).to_contain_text("not valid any more")
    await look(bob, f"join-refused-{scheme}")


async def test_the_api_documentation(new_person: NewPerson) -> None:
    ann = await new_person("Ann", registered=False)
    for locale in ("en", "zh"):
        await ann.page.goto(f"{ann.url}/api/docs?lang={locale}")
        await ann.page.get_by_role("heading", level=1).wait_for()
        await look(ann, f"api-docs-{locale}")
