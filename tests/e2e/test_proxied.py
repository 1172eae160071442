"""The web app as people meet it in production: over TLS, through Nginx, with gateways that may die."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from local.cluster import Cluster
from tests.e2e.conftest import NewPerson
from tests.e2e.person import WITHOUT_SERVER
from tests.proxied import nginx_of, proxied_cluster

pytestmark = pytest.mark.timeout(180)


@pytest_asyncio.fixture(loop_scope="session")
async def running() -> AsyncIterator[Cluster]:
    async with proxied_cluster() as cluster:
        yield cluster


def sockets_of(page: Page) -> list[str]:
    """Fills with the nodes to which the page opens WebSockets, in order."""
    nodes: list[str] = []
    page.on("websocket", lambda socket: nodes.append(urlsplit(socket.url).path.rpartition("/")[2]))
    return nodes


async def test_people_chat_through_nginx_and_go_on_when_their_gateway_dies(
    running: Cluster, new_person: NewPerson
) -> None:
    url = nginx_of(running).url
    ann, bob = [await new_person(name, url=url, registered=False, ignore_https_errors=True) for name in ("Ann", "Bob")]
    nodes = sockets_of(ann.page)
    for person in (ann, bob):
        person.expected += WITHOUT_SERVER
        await person.register()
    await ann.create_group("Harbour")
    await bob.join(await ann.invite_link())
    await ann.say("is this line safe?")
    await bob.sees("is this line safe?")
    await bob.say("as safe as TLS")
    await ann.sees("as safe as TLS")

    assert nodes[-1] in {node.name for node in running.of_role("gateway")}
    killed = running.nodes[nodes[-1]]
    await killed.kill()
    await ann.say("and now?")
    await bob.sees("and now?", within_s=30)
    await bob.say("somewhere else")
    await ann.sees("somewhere else", within_s=30)
    assert nodes[-1] != killed.name
    await expect(ann.page.locator("article.failed")).to_have_count(0)
    assert (
        await ann.texts() == await bob.texts() == ["is this line safe?", "as safe as TLS", "and now?", "somewhere else"]
    )
