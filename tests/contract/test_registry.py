"""The contract of registries, on each of them."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from app.cluster.base import NodeIdTaken, Registry, View
from app.errors import Busy
from tests.contract.registries import LEASE_S, PLACES, SLACK_S, Place, ids, node, until

MANY = 64


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.xdist_group(kind)) for kind in PLACES])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    async with PLACES[request.param]() as place:
        yield place
        await place.close()


async def test_who_renews_is_seen_by_everybody_as_it_is_now(place: Place) -> None:
    first, second, reader = await place.connect(), await place.connect(), await place.connect()
    assert ids(await first.renew(node("a"))) == ["a"]
    view = await second.renew(node("b", weight=3))
    assert view.nodes == (node("a"), node("b", weight=3))
    assert await reader.read() == view
    view = await first.renew(node("a", state="draining"))
    assert view.nodes[0].state == "draining"
    assert await reader.read() == view


async def test_who_does_not_renew_is_gone_after_a_lease(place: Place) -> None:
    dead, alive, reader = await place.connect(lease_s=1), await place.connect(), await place.connect()
    began = time.monotonic()
    await dead.renew(node("dead"))

    async def dead_is_gone() -> bool:
        await alive.renew(node("alive"))
        return "dead" not in ids(await reader.read())

    await until(dead_is_gone)
    assert time.monotonic() - began >= 1
    assert ids(await dead.renew(node("dead"))) == ["alive", "dead"]


async def test_people_see_how_long_leases_last(place: Place) -> None:
    long, short, reader = await place.connect(), await place.connect(lease_s=20), await place.connect()
    await long.renew(node("long"))
    await short.renew(node("short"))
    await place.write("broken", b"{")
    lasts = await reader.leases()
    assert lasts.keys() == {"long", "short"}
    assert 0 < lasts["short"] <= 20 < lasts["long"] <= LEASE_S


async def test_who_leaves_is_gone_at_once_and_its_place_is_free(place: Place) -> None:
    first, second = await place.connect(), await place.connect()
    await first.renew(node("a", "one"))
    await second.leave(node("a", "another"))
    assert ids(await second.read()) == ["a"]
    await first.leave(node("a", "one"))
    assert ids(await second.read()) == []
    await first.leave(node("a", "one"))
    assert ids(await second.renew(node("a", "two"))) == ["a"]


async def test_a_name_has_one_live_process(place: Place) -> None:
    first, second = await place.connect(lease_s=2), await place.connect()
    await first.renew(node("a", "one"))
    with pytest.raises(NodeIdTaken, match=r"gateway\.node_id a is in use by another process"):
        await second.renew(node("a", "two"))
    assert (await first.renew(node("a", "one"))).nodes == (node("a", "one"),)

    async def let_in() -> bool:
        try:
            return (await second.renew(node("a", "two"))).nodes == (node("a", "two"),)
        except NodeIdTaken:
            return False

    await until(let_in)
    with pytest.raises(NodeIdTaken):
        await first.renew(node("a", "one"))
    await first.leave(node("a", "one"))
    assert ids(await second.read()) == ["a"]


async def test_of_two_that_come_at_once_one_is_refused(place: Place) -> None:
    registries = [await place.connect() for _ in range(8)]
    answers = await asyncio.gather(
        *(registry.renew(node("a", f"boot{number}")) for number, registry in enumerate(registries)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers].count(View) == 1
    assert [type(answer) for answer in answers].count(NodeIdTaken) == 7


async def test_an_emptied_registry_is_told_apart(place: Place) -> None:
    first, reader = await place.connect(), await place.connect()
    before = await first.renew(node("a"))
    assert (await reader.read()).incarnation == before.incarnation
    await place.empty()
    emptied = await answered(reader)
    assert emptied.nodes == ()
    assert emptied.incarnation != before.incarnation
    again = await first.renew(node("a"))
    assert again.nodes == (node("a"),)
    assert again.incarnation == emptied.incarnation


async def test_a_new_registry_has_one_incarnation_whoever_comes_first(place: Place) -> None:
    registries = [await place.connect() for _ in range(5)]
    await place.empty()
    await answered(registries[0])
    views = await asyncio.gather(*(registry.read() for registry in registries))
    assert len({view.incarnation for view in views}) == 1


async def test_a_registry_that_does_not_answer_is_busy_in_time_and_comes_back(place: Place) -> None:
    first, reader = await place.connect(timeout_s=1), await place.connect(timeout_s=1)
    await first.renew(node("a"))
    place.freeze()
    try:
        for call in (first.renew(node("a")), reader.read(), first.leave(node("a"))):
            began = time.monotonic()
            with pytest.raises(Busy):
                await call
            assert time.monotonic() - began < SLACK_S / 2
    finally:
        place.thaw()
    await answered(reader)

    async def back() -> bool:
        return ids(await first.renew(node("a"))) == ["a"]

    await until(back)


async def test_many_nodes_are_all_seen(place: Place) -> None:
    registries = [await place.connect() for _ in range(MANY)]
    nodes = [node(f"gateway-{number:02}") for number in range(MANY)]
    for registry, each in zip(registries, nodes, strict=True):
        await registry.renew(each)
    views = await asyncio.gather(*(registry.renew(each) for registry, each in zip(registries, nodes, strict=True)))
    assert views[-1].nodes == tuple(nodes)


@pytest.mark.parametrize("name", ["0", "A.b_c-9", "incarnation", "nodes", "g" * 100])
async def test_odd_names_are_names(place: Place, name: str) -> None:
    first, second = await place.connect(), await place.connect()
    await first.renew(node(name))
    await second.renew(node(name + "x"))
    assert ids(await second.read()) == sorted([name, name + "x"])
    await first.leave(node(name))
    assert ids(await second.read()) == [name + "x"]


async def test_what_is_no_node_is_left_out_and_logged(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    first = await place.connect()
    await first.renew(node("a"))
    good = node("b").encode()
    for name, value in {
        "broken": b"{",
        "text": b"9999999999999 boot \xff\x00",
        "renamed": b"9999999999999 boot " + good,
        "heavy": b"9999999999999 boot " + good.replace(b'"weight":1', b'"weight":1000'),
        "b": b"",
    }.items():
        await place.write(name, value)
    assert ids(await first.renew(node("a"))) == ["a"]
    assert ids(await first.read()) == ["a"]
    assert caplog.text.count("registry_entries_ignored") == 1
    second = await place.connect()
    assert ids(await second.renew(node("b"))) == ["a", "b"]


async def answered(registry: Registry) -> View:
    """What it says as soon as it says something."""
    since = time.monotonic()
    while True:
        try:
            return await registry.read()
        except Busy:
            assert time.monotonic() - since < SLACK_S
