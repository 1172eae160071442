"""The server dies, the network goes: people go on writing, and read everything once and in order."""

import asyncio

import pytest
from playwright.async_api import expect

from tests.cable import cable_to
from tests.e2e.conftest import WITH_WEB, NewPerson
from tests.e2e.person import WITHOUT_SERVER, Person
from tests.faults.process import ServerProcess, a_server

CUT_S = 30
BACK_S = 45
"""A page that has tried in vain waits for up to 30 s until it tries again."""


async def all_in_order(person: Person, expected: list[str]) -> None:
    """Wait until everything is there; once, and in this order."""
    await person.sees(expected[-1], BACK_S)
    await expect(person.page.locator("article:not([data-seq])")).to_have_count(0, timeout=30_000)
    assert await person.texts() == expected


@pytest.mark.fault
@pytest.mark.timeout(180)
async def test_the_server_is_killed_and_started_again(new_person: NewPerson) -> None:
    async with a_server() as server:
        await server.start(**WITH_WEB)
        ann, bob = await new_person("Ann", url=server.url), await new_person("Bob", url=server.url)
        for person in (ann, bob):
            person.expected += WITHOUT_SERVER
        await ann.create_group("Storm")
        await bob.join(await ann.invite_link())
        said = [f"before {number}" for number in range(3)]
        for text in said:
            await ann.say(text)
        await bob.sees(said[-1])
        await server.kill(group=False)
        await expect(ann.page.get_by_text("No connection.")).to_be_visible()
        for number in range(3):
            said.append(f"meanwhile {number}")
            await ann.say(said[-1])
        await expect(ann.page.get_by_text("Sending…")).to_have_count(3)
        # Even a closed window forgets nothing that was not sent; the page itself cannot be loaded now.
        await server.start(**WITH_WEB)
        await all_in_order(ann, said)
        await all_in_order(bob, said)
        await expect(ann.page.get_by_text("No connection.")).to_have_count(0)
        await bob.say("after")
        await all_in_order(ann, [*said, "after"])


@pytest.mark.fault
@pytest.mark.timeout(120)
async def test_what_was_unsent_when_the_page_was_left_is_sent_later(
    new_person: NewPerson, server: ServerProcess
) -> None:
    ann = await new_person("Ann")
    ann.expected += WITHOUT_SERVER
    await ann.create_group("Later")
    await ann.context.set_offline(True)
    # The connection that is open is closed by the page's own doubt of it.
    await ann.page.evaluate("dispatchEvent(new Event('online'))")
    await expect(ann.page.get_by_text("No connection.")).to_be_visible(timeout=15_000)
    await ann.say("written in a tunnel")
    await ann.context.set_offline(False)
    await ann.page.reload()
    await all_in_order(ann, ["written in a tunnel"])


@pytest.mark.fault
@pytest.mark.timeout(120)
async def test_the_network_is_gone_for_half_a_minute(new_person: NewPerson) -> None:
    async with a_server() as server, cable_to(server.port) as cable:
        await server.start(**WITH_WEB, IM_HTTP__ALLOWED_ORIGINS=f'["{cable.url}"]')
        ann, bob = await new_person("Ann", url=server.url), await new_person("Bob", url=cable.url)
        # The server ends before the windows are closed.
        for person in (ann, bob):
            person.expected += WITHOUT_SERVER
        await ann.create_group("Tunnel")
        link = await ann.invite_link()
        await bob.join(link.replace(server.url, cable.url))
        said = ["before"]
        await ann.say("before")
        await bob.sees("before")
        cable.cut()
        for number in range(120):
            said.append(f"meanwhile {number}")
            await ann.say(said[-1])
            await ann.sees(said[-1])
        await asyncio.sleep(CUT_S)
        assert (await bob.texts())[-1] == "before"
        cable.mend()
        await bob.sees(said[-1])
        seen: list[str] = []
        for _ in range(60):
            seen = list(dict.fromkeys([*await bob.texts(), *seen]))
            if seen[0] == "before":
                break
            await bob.page.locator(".scroller").evaluate("(element) => element.scrollBy(0, -400)")
            await bob.page.wait_for_timeout(50)
        assert seen == said
