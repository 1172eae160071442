"""What is done to gateways that find each other in a registry, with everybody coming in through Nginx. Each returns the seconds it took."""

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from app.cluster.base import Registry
from app.cluster.etcd_registry import EtcdRegistry
from app.cluster.redis_registry import RedisRegistry
from app.errors import Busy
from app.settings import load as load_settings
from app.storage.redis import connect
from local.node import READY_S, Node
from tests.faults.conftest import PATIENCE
from tests.faults.harms import BACK_S, DRAINED_S, GRACE_S, RECOVERED_S, Ground, Harm, empty_redis, kill_gateway
from tests.faults.member import Member

AGREED_S = 3.0 * PATIENCE
"""From a change to the last process that knows of it."""
TOLD_S = 1.0 * PATIENCE
"""From a change until every api sends people where they belong now."""
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
RUSH_ROW, USUAL_RUSH_ROW = "reconnect rush", "reconnect rush, usual admission"
RUSHES = ("reconnect storm", RUSH_ROW, USUAL_RUSH_ROW)
LOOK_S = 0.05


async def kill(ground: Ground) -> float:
    """SIGKILL one of them; when it is back, the next one waits until its people are."""
    name = ground.chance.choice(_running(ground)).name
    took_s = await kill_gateway(ground, name)
    await _until_settled(ground, name, 1 / len(_running(ground)))
    return took_s


async def come_flap_and_go(ground: Ground) -> float:
    """A fifth gateway comes, is killed and started again at once, and leaves; returns the longest time until all agreed.

    Each time at most its share of the users is told another place, is asked by a gateway to move, and they go there.
    """
    spare, others = ground.cluster.nodes[SPARE], _running(ground)
    await ground.busy()
    share = 1 / (len(others) + 1)

    before, old, moved = await _places(ground), await _until_agreed(ground, others), await _moved(ground)
    await spare.launch()
    came = await _until_agreed(ground, [*others, spare], READY_S, other_than=old.ring)
    await spare.until_ready()
    after = await _places(ground)
    _at_most(share, _differ(before, after), "are told another place")
    assert {after[user] for user in after if after[user] != before[user]} == {SPARE}
    await _until_settled(ground, SPARE, share)
    _at_most(share, (await _moved(ground) - moved) / len(ground.load.members), "were moved to it")

    moved = await _moved(ground, others)
    await spare.kill()
    await spare.start()
    # As many as before: that it is another process shows that it was noticed.
    flapped = await _until_agreed(ground, [*others, spare], other_than=came.ring)
    await ground.load.until_online(BACK_S)
    assert await _places(ground) == after

    told = time.monotonic()
    spare.signal(signal.SIGTERM)
    gone = await _until_agreed(ground, others, other_than=flapped.ring, since=told)
    assert gone.ring == old.ring
    assert await _places(ground) == before
    code = await spare.ended(GRACE_S)
    assert code == 0, f"exit code {code}: {spare.tail()}"
    await ground.load.until_online(BACK_S)
    _at_most(share, (await _moved(ground, others) - moved) / len(ground.load.members), "were moved to and fro")
    await ground.answered(RECOVERED_S)
    return max(came.took_s, flapped.took_s, gone.took_s)


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
    ring = (await _until_agreed(ground, _running(ground))).ring
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
    assert (await _until_agreed(ground, _running(ground))).ring == ring
    await ground.answered(RECOVERED_S)
    return took_s


async def empty_registry(ground: Ground) -> float:
    """The registry starts with nothing in it; nobody is disconnected, and every place stays; returns when all had registered again."""
    await ground.busy()
    before, connects, old = (
        await _places(ground),
        ground.load.tally.connects,
        await _until_agreed(ground, _running(ground)),
    )
    since = time.monotonic()
    if ground.cluster.etcd is not None:
        await asyncio.to_thread(ground.cluster.etcd.forget)
        await ground.cluster.etcd.start()
        await ground.answered(RECOVERED_S)
    else:
        await empty_redis(ground)
    await _until_registered(ground)
    took_s = time.monotonic() - since
    assert (await _until_agreed(ground, _running(ground))).ring == old.ring
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
    took_s = await rush_as_usual(ground)
    assert refused[HTTPStatus.SERVICE_UNAVAILABLE] > before, "nobody was refused: it was no rush"
    return took_s


async def rush_as_usual(ground: Ground) -> float:
    """The same, whether or not anybody is refused."""
    async with ground.watching_memory():
        return await _all_again(ground)


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


@dataclass(frozen=True, slots=True)
class Agreed:
    """Every process has the same ring."""

    ring: str
    took_s: float
    """From the change to the last of them."""


async def _until_agreed(
    ground: Ground,
    gateways: Sequence[Node],
    within_s: float = NOTICED_S,
    *,
    other_than: str = "",
    since: float | None = None,
) -> Agreed:
    """Wait until these gateways and every api have one ring of so many gateways, which is not `other_than`.

    The change was at `since`; None: when the first of them knew, and nobody before it could.
    """
    apis = ground.cluster.of_role("api")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:

        async def learned(node: Node) -> tuple[str, float, float]:
            """Its ring, and between which times it learned of it."""
            asked = time.monotonic()
            while True:
                answer = await _metrics(http, node)
                ring = answer.get("im_cluster_ring", "")
                if ring != other_than and float(answer.get("im_cluster_nodes", -1)) == len(gateways):
                    return ring, asked, time.monotonic()
                asked = time.monotonic()
                await asyncio.sleep(LOOK_S)

        async with asyncio.timeout(within_s):
            found = await asyncio.gather(*map(learned, [*apis, *gateways]))
    began = min(asked for _, asked, _ in found) if since is None else since
    took_s, told_s = (max(at for _, _, at in some) - began for some in (found, found[: len(apis)]))
    names, rings = [node.name for node in gateways], {ring for ring, _, _ in found}
    assert len(rings) == 1, f"different rings of {names}: {found}"
    assert took_s <= AGREED_S, f"{took_s:.1f} s until everybody knew of {names}"
    assert told_s <= TOLD_S, f"{told_s:.1f} s until the apis knew of {names}"
    return Agreed(rings.pop(), took_s)


async def _until_registered(ground: Ground) -> None:
    """Wait until the registry itself names all that run: they know each other without it for a while."""
    url, etcd = ground.cluster.stores.redis_url, ground.cluster.etcd
    settings = load_settings({} if etcd is None else {"etcd": {"endpoints": [etcd.address]}})
    lease_s, timeout_s = settings.cluster.lease_s, settings.cluster.timeout_s
    registry: Registry = EtcdRegistry(settings.etcd, lease_s=lease_s, timeout_s=timeout_s)
    if etcd is None:
        redis = connect(url, pool_max=1, connect_timeout_s=timeout_s, command_timeout_s=timeout_s)
        registry = RedisRegistry(redis, lease_s=lease_s, timeout_s=timeout_s)
    names: set[str] = set()
    try:
        async with asyncio.timeout(DRAINED_S):
            await registry.start()
            while names != {node.name for node in _running(ground)}:
                with suppress(Busy):
                    names = {node.node_id for node in (await registry.read()).nodes}
                await asyncio.sleep(LOOK_S)
    finally:
        await registry.stop()


async def _until_settled(ground: Ground, name: str, share: float) -> None:
    """Wait until those who belong to this gateway are there."""
    members = ground.load.members
    async with asyncio.timeout(SETTLED_S):
        while sum(member.online and member.node == name for member in members) < (share - MOVED_BEYOND) * len(members):
            await asyncio.sleep(LOOK_S)
    await ground.load.until_online(BACK_S)


async def _metrics(http: aiohttp.ClientSession, node: Node) -> Mapping[str, str]:
    """Values by name with labels; none when the process does not answer."""
    try:
        async with http.get(f"{node.url}/metrics") as answer:
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError):
        return {}
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))


async def _moved(ground: Ground, gateways: Sequence[Node] = ()) -> float:
    """How many connections these gateways, or all that run, have asked to go because the ring changed, since they were started."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
        answers = [await _metrics(http, node) for node in gateways or _running(ground)]
    assert all(answers), "a gateway does not answer"
    return sum(float(answer.get('im_connections_drained_total{cause="ring"}', 0)) for answer in answers)


async def _places(ground: Ground) -> dict[int, str]:
    """User → gateway, as an api says now, for some of the members."""
    slots = asyncio.Semaphore(16)

    async def place(member: Member) -> str:
        async with slots:
            return await member.place()

    asked = ground.load.members[:ASKED]
    return dict(zip((member.user_id for member in asked), await asyncio.gather(*map(place, asked)), strict=True))


def _differ(before: Mapping[int, str], after: Mapping[int, str]) -> float:
    return sum(before[user] != after[user] for user in before) / len(before)


def _at_most(share: float, part: float, what: str) -> None:
    assert part <= share + MOVED_BEYOND, f"{part:.0%} of the users {what}, at most {share + MOVED_BEYOND:.0%} should"


GATEWAY_HARMS: Mapping[str, Harm] = {
    "gateway killed": Harm(kill, 20, 1, BACK_S, "until everybody was connected again"),
    "gateway comes, flaps and goes": Harm(come_flap_and_go, 10, 1, AGREED_S, "until every process knew of it"),
    "gateways restarted in turn": Harm(restart_all, 3, 1, GRACE_S, "the longest ending"),
    CUT_ROW: Harm(cut_off, 3, 1, AWAY_S, "until its people were elsewhere", (60.0, 1.0)),
    "registry restarted empty": Harm(empty_registry, 5, 1, DRAINED_S, "until everybody was registered again"),
    "reconnect storm": Harm(storm, 2, 1, STORM_S, "until everybody was connected again"),
    RUSH_ROW: Harm(rush, 2, 1, STORM_S, "until everybody was connected again"),
    USUAL_RUSH_ROW: Harm(rush_as_usual, 1, 1, STORM_S, "until everybody was connected again"),
}
