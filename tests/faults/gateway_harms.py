"""What is done to gateways that find each other in a registry, with everybody coming in through Nginx. Each returns the seconds it took."""

import asyncio
import signal
import time
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from local.node import READY_S, Node
from tests.faults.conftest import PATIENCE
from tests.faults.harms import BACK_S, DRAINED_S, GRACE_S, RECOVERED_S, Ground, Harm, empty_redis, kill_gateway
from tests.faults.member import Member

AGREED_S = 3.0 * PATIENCE
"""From the first process that knows of a change to the last one."""
NOTICED_S = 10.0 * PATIENCE
"""A lease has to end before anybody knows."""
MOVED_BEYOND = 0.05
"""What chance may move beside the share of the gateway that came or went."""
ASKED = 1500
"""Members whose place is looked up. Chance moves a share of so many by 0.03 at most in 99 of 100 tries; of fewer, by more."""
SETTLED_S = 100.0 * PATIENCE
"""Everybody who belongs to a gateway that came is there: after many absences it has to stay for 64 s first."""
AWAY_S = 15.0 * PATIENCE
"""A gateway is cut off: its people are elsewhere."""
STORM_S = 60.0 * PATIENCE
SPARE = "gateway5"
CUT, CUT_ROW = "gateway1", "gateway cut off"
RUSH_ROW = "reconnect rush"
RUSHES = ("reconnect storm", RUSH_ROW)
LOOK_S = 0.05


async def kill(ground: Ground) -> float:
    """SIGKILL one of them; when it is back, the next one waits until its people are."""
    name = ground.chance.choice(_running(ground)).name
    took_s = await kill_gateway(ground, name)
    await _until_settled(ground, name, 1 / len(_running(ground)))
    return took_s


async def come_flap_and_go(ground: Ground) -> float:
    """A fifth gateway comes, is killed and started again at once, and leaves; returns the longest time until all agreed.

    Each time at most its share of the users is told another place, and they go there.
    """
    spare, longest = ground.cluster.nodes[SPARE], 0.0
    await ground.busy()
    share = 1 / (len(_running(ground)) + 1)

    before = await _places(ground)
    await spare.launch()
    longest = max(longest, await _until_agreed(ground, _running(ground), READY_S))
    await spare.until_ready()
    after = await _places(ground)
    _moved_at_most(before, after, share)
    assert {after[user] for user in after if after[user] != before[user]} == {SPARE}
    await _until_settled(ground, SPARE, share)

    await spare.kill()
    await spare.start()
    longest = max(longest, await _until_agreed(ground, _running(ground)))
    await ground.load.until_online(BACK_S)
    assert await _places(ground) == after

    await spare.stop()
    longest = max(longest, await _until_agreed(ground, _running(ground)))
    assert await _places(ground) == before
    await ground.load.until_online(BACK_S)
    await ground.answered(RECOVERED_S)
    return longest


async def restart_all(ground: Ground) -> float:
    """Every gateway is told to end and started again, one after the other; returns the longest ending."""
    longest = 0.0
    await ground.busy()
    for node in _running(ground):
        since = time.monotonic()
        node.signal(signal.SIGTERM)
        code = await node.ended(GRACE_S)
        longest = max(longest, time.monotonic() - since)
        assert code == 0, f"exit code {code}: {node.tail()}"
        await node.start()
        # Those who were asked to go, and those who come back: there are many at once.
        await ground.load.until_online(GRACE_S)
    await ground.answered(RECOVERED_S)
    return longest


async def cut_off(ground: Ground) -> float:
    """One gateway loses Redis, etcd and the log for a minute, and only it; returns when its people were elsewhere."""
    assert ground.cables, "its ways to the stores have no cables"
    node = ground.cluster.nodes[CUT]
    await _until_settled(ground, CUT, 1 / len(_running(ground)))
    await ground.busy()
    there = [member for member in ground.load.members if member.node == CUT]
    for cable in ground.cables:
        cable.cut()
    since = time.monotonic()
    try:
        async with asyncio.timeout(AWAY_S):
            while any(member.node == CUT or not member.online for member in there):
                await asyncio.sleep(LOOK_S)
        took_s = time.monotonic() - since
        await ground.answered(RECOVERED_S)
        await asyncio.sleep(max(0.0, ground.away_s - took_s))  # how long it is away is the point, nothing is waited for
        assert node.running, f"it ended: {node.tail()}"
    finally:
        for cable in ground.cables:
            cable.mend()
    await node.until_ready()
    await _until_agreed(ground, _running(ground))
    await ground.answered(RECOVERED_S)
    return took_s


async def empty_registry(ground: Ground) -> float:
    """The registry starts with nothing in it; nobody is disconnected, and every place stays; returns when all had registered again."""
    await ground.busy()
    before, connects = await _places(ground), ground.load.tally.connects
    since = time.monotonic()
    if ground.cluster.etcd is not None:
        await asyncio.to_thread(ground.cluster.etcd.forget)
        await ground.cluster.etcd.start()
        await ground.answered(RECOVERED_S)
    else:
        await empty_redis(ground)
    await _until_agreed(ground, _running(ground))
    took_s = time.monotonic() - since
    assert await _places(ground) == before
    assert ground.load.tally.connects == connects, "somebody had to connect again"
    return took_s


async def storm(ground: Ground) -> float:
    """Nginx is killed and comes back: everybody reconnects, each after a random part of what `hello.backoff` allows."""
    for member in ground.load.members:
        member.patient = True
    try:
        return await _all_again(ground)
    finally:
        for member in ground.load.members:
            member.patient = False


async def rush(ground: Ground) -> float:
    """The same with clients that try again at once: gateways stay up, refuse what is too much for them, and let everybody in."""
    refused = ground.load.tally.refused
    before = refused[HTTPStatus.SERVICE_UNAVAILABLE]
    async with ground.watching_memory():
        took_s = await _all_again(ground)
    assert refused[HTTPStatus.SERVICE_UNAVAILABLE] > before, "nobody was refused: it was no rush"
    return took_s


async def _all_again(ground: Ground) -> float:
    nginx = ground.cluster.nginx
    assert nginx is not None
    await ground.busy()
    pids = [node.pid for node in _running(ground)]
    await nginx.stop()
    await ground.load.until_offline(BACK_S)
    await nginx.start()
    since = time.monotonic()
    await ground.load.until_online(STORM_S)
    took_s = time.monotonic() - since
    assert [node.pid for node in _running(ground)] == pids
    await ground.answered(DRAINED_S)
    return took_s


def _running(ground: Ground) -> list[Node]:
    return [node for node in ground.cluster.of_role("gateway") if node.running]


async def _until_agreed(ground: Ground, gateways: list[Node], within_s: float = NOTICED_S) -> float:
    """Wait until every process counts these gateways; the seconds from the first one to the last."""
    names, first = {node.name for node in gateways}, 0.0
    nodes = [*gateways, *ground.cluster.of_role("api")]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http, asyncio.timeout(within_s):
        while True:
            agree = [await _gauge(http, node, "im_cluster_nodes") == len(names) for node in nodes]
            if any(agree) and not first:
                first = time.monotonic()
            if all(agree):
                break
            await asyncio.sleep(LOOK_S)
    took_s = time.monotonic() - first
    assert took_s <= AGREED_S, f"{took_s:.1f} s from the first process that knew of {names} to the last"
    return took_s


async def _until_settled(ground: Ground, name: str, share: float) -> None:
    """Wait until those who belong to this gateway are there."""
    members = ground.load.members
    async with asyncio.timeout(SETTLED_S):
        while sum(member.online and member.node == name for member in members) < (share - MOVED_BEYOND) * len(members):
            await asyncio.sleep(LOOK_S)
    await ground.load.until_online(BACK_S)


async def _gauge(http: aiohttp.ClientSession, node: Node, name: str) -> float:
    """A metric without labels; -1 when the process does not answer."""
    try:
        async with http.get(f"{node.url}/metrics") as answer:
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError):
        return -1
    return next(
        (family.samples[0].value for family in text_string_to_metric_families(text) if family.name == name), -1.0
    )


async def _places(ground: Ground) -> dict[int, str]:
    """User → gateway, as an api says now, for some of the members."""
    slots = asyncio.Semaphore(16)

    async def place(member: Member) -> str:
        async with slots:
            return await member.place()

    asked = ground.load.members[:ASKED]
    return dict(zip((member.user_id for member in asked), await asyncio.gather(*map(place, asked)), strict=True))


def _moved_at_most(before: Mapping[int, str], after: Mapping[int, str], share: float) -> None:
    moved = sum(before[user] != after[user] for user in before) / len(before)
    assert moved <= share + MOVED_BEYOND, f"{moved:.0%} of the users move, at most {share + MOVED_BEYOND:.0%} should"


GATEWAY_HARMS: Mapping[str, Harm] = {
    "gateway killed": Harm(kill, 20, 1, BACK_S, "until everybody was connected again"),
    "gateway comes, flaps and goes": Harm(come_flap_and_go, 10, 1, AGREED_S, "until every process knew of it"),
    "gateways restarted in turn": Harm(restart_all, 3, 1, GRACE_S, "the longest ending"),
    CUT_ROW: Harm(cut_off, 3, 1, AWAY_S, "until its people were elsewhere", (60.0, 1.0)),
    "registry restarted empty": Harm(empty_registry, 5, 1, DRAINED_S, "until everybody was registered again"),
    "reconnect storm": Harm(storm, 2, 1, STORM_S, "until everybody was connected again"),
    RUSH_ROW: Harm(rush, 2, 1, STORM_S, "until everybody was connected again"),
}
