"""How connections leave a gateway that ends, that lost its registry, or to which their users do not belong any more."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from app.cluster.base import Node
from app.cluster.redis_registry import RedisRegistry
from app.delivery.grpc_access import Access
from app.delivery.grpc_server import PushServer
from app.delivery.memory import MemoryDelivery
from app.metrics import Metrics
from app.parts import Parts
from app.protocol.frames import CLOSE_DRAIN
from app.roles import PARTS, drain
from app.storage.embedded.valkey import ValkeyProcess
from app.storage.redis import connect
from tests.cable import cable_to
from tests.contract.pushing import Heard, options
from tests.integration.test_admission import refused
from tests.running import Server, Socket, User, serving, settings_for

OWN, OTHER = "own", "other"
SLACK_S = 20.0
LOOK_S = 0.01
QUICK = {"drain_answers_s": 0.1, "close_timeout_s": 0.3}
LISTED = {"node_id": OWN, "nodes": (f"{OWN}=ws://own/ws", f"{OTHER}=ws://other/ws")}
REGISTERED = {"node_id": OWN, "public_ws_url": "ws://own/ws"}


def parts_of(server: Server) -> Parts:
    return server.app[PARTS]


@asynccontextmanager
async def one_gateway(dsn: str, redis_url: str, **sections: dict[str, Any]) -> AsyncIterator[Server]:
    """A whole server in one process."""
    async with serving(settings_for(dsn, redis_url, **sections), MemoryDelivery()) as server:
        yield server


@asynccontextmanager
async def sockets_of(users: Sequence[User]) -> AsyncIterator[list[Socket]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(user.socket()) for user in users]


async def asked_to_go(socket: Socket) -> float:
    """Wait for `drain` and the close after it; when that was."""
    told = await socket.event("drain")
    assert told["retry_after_ms"] >= 1000
    assert await socket.closed() == CLOSE_DRAIN
    return time.monotonic()


async def stays(socket: Socket) -> bool:
    """Whether it is served, and was not asked to go."""
    return all(frame["type"] != "drain" for frame in await socket.nothing_but_pong())


# A gateway that ends


async def test_connections_go_one_after_the_other_while_the_rest_is_served(dsn: str, redis_url: str) -> None:
    count, over_s = 40, 2.0
    gateway = {**QUICK, **LISTED, "drain_s": over_s + 0.4}
    async with one_gateway(dsn, redis_url, gateway=gateway) as server:
        users = await server.users(count)
        group = await users[0].group(users[1])
        async with sockets_of(users) as sockets:
            began = time.monotonic()
            draining = asyncio.create_task(drain(server.app))
            ends = [asyncio.create_task(asked_to_go(socket)) for socket in sockets]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            assert not all(end.done() for end in ends)
            # The way in is closed and says so, the rest of the server serves.
            assert await refused(users[0]) == "draining"
            async with server.http.get(f"{server.url}/readyz") as response:
                assert response.status == 503
                assert "draining" in (await response.json())["reasons"]["gateway"]
            assert (await users[0].post(group, "over HTTP"))[0] == 201
            gone = sorted([await end - began for end in ends])
            await draining
            # None before the slice of time that is its own; that it is not after it either shows tests/unit/test_drain_times.py.
            assert all(at >= over_s * number / count for number, at in enumerate(gone))
            assert not server.hubs[0].connections
            metrics = parts_of(server).metrics.registry
            assert metrics.get_sample_value("im_connections_drained_total", {"cause": "shutdown"}) == count


async def test_who_has_nowhere_to_go_does_not_wait(dsn: str, redis_url: str) -> None:
    alone = {**QUICK, "drain_s": 3600}
    async with one_gateway(dsn, redis_url, gateway=alone) as server, sockets_of(await server.users(5)) as sockets:
        async with asyncio.timeout(SLACK_S):
            await asyncio.gather(drain(server.app), *map(asked_to_go, sockets))
    # And nobody is waited for.
    async with one_gateway(dsn, redis_url, gateway={**LISTED, "drain_s": 3600}) as server:
        async with asyncio.timeout(SLACK_S):
            await drain(server.app)


async def test_a_storm_is_not_sent_to_where_it_would_be_refused(dsn: str, redis_url: str) -> None:
    slow = {**QUICK, "admission_per_second": 2, "admission_burst": 1000}
    async with one_gateway(dsn, redis_url, gateway=slow) as server, sockets_of(await server.users(20)) as sockets:
        await drain(server.app)
        told = [(await socket.event("drain"))["retry_after_ms"] for socket in sockets]
    # Ten seconds for twenty, beyond the one for everybody.
    assert min(told) >= 1000
    assert max(told) <= 11_000
    assert len({wait_ms // 1000 for wait_ms in told}) > 3


async def test_answers_come_before_the_end_and_later_requests_are_left_to_the_next_connection(
    dsn: str, redis_url: str
) -> None:
    gateway = {"drain_answers_s": SLACK_S, "close_timeout_s": 0.3}
    async with one_gateway(dsn, redis_url, gateway=gateway) as server:
        ann = await server.user()
        group = await ann.group()
        blocker = await asyncpg.connect(dsn)
        async with ann.socket() as a:
            try:
                async with blocker.transaction():
                    await blocker.execute("LOCK TABLE group_seq IN ACCESS EXCLUSIVE MODE")
                    sending = asyncio.create_task(a.send(group, "in time"))
                    async with asyncio.timeout(SLACK_S):
                        while not any(connection.unacked for connection in server.hubs[0].connections):
                            await asyncio.sleep(LOOK_S)
                    draining = asyncio.create_task(drain(server.app))
                    async with asyncio.timeout(SLACK_S):
                        while not any(connection.leaving for connection in server.hubs[0].connections):
                            await asyncio.sleep(LOOK_S)
                    too_late = {"group_id": group, "client_msg_id": "6d1c0f3e-7a53-4a9e-9d2f-111111111111"}
                    await a.ws.send_json({"id": 99, "type": "message.send", "kind": "text", "body": "late", **too_late})
                    assert not draining.done()
            finally:
                await blocker.close()
            assert (await sending)["seq"] == 1
            await asked_to_go(a)
            await draining
        assert [message["body"] for message in await ann.history(group)] == ["in time"]


async def test_who_does_not_answer_the_close_is_cut(dsn: str, redis_url: str) -> None:
    async with one_gateway(dsn, redis_url, gateway=QUICK) as server:
        ann = await server.user()
        async with ann.socket():
            # It reads nothing more, and so never says goodbye.
            async with asyncio.timeout(SLACK_S):
                await drain(server.app)
            assert not server.hubs[0].connections


# A ring that changes


@asynccontextmanager
async def neighbour(redis_url: str, **changed: Any) -> AsyncIterator["Neighbour"]:
    redis = connect(redis_url, pool_max=1, connect_timeout_s=2, command_timeout_s=2)
    node = Neighbour(RedisRegistry(redis, lease_s=3600, timeout_s=10), **changed)
    try:
        yield node
    finally:
        await node.registry.stop()


class Neighbour:
    """Another gateway, as far as the registry goes."""

    def __init__(self, registry: RedisRegistry, **changed: Any) -> None:
        fields: dict[str, Any] = {"node_id": OTHER, "boot_id": "b", "ws_url": "ws://other/ws", "grpc_address": ""}
        self.registry = registry
        self.node = Node(**(fields | {"weight": 1, "state": "up", "version": "0", "virtual_nodes": 1024} | changed))

    async def come(self) -> None:
        await self.registry.renew(self.node)

    async def go(self) -> None:
        await self.registry.leave(self.node)


def owners(server: Server, users: Sequence[User]) -> set[str]:
    """Which of the users belong to the neighbour, as the gateway knows it."""
    membership = parts_of(server).membership
    assert membership is not None
    return {user.id for user in users if getattr(membership.ring.node_of(int(user.id)), "node_id", OWN) == OTHER}


async def until_seen(server: Server, *nodes: str) -> None:
    membership = parts_of(server).membership
    assert membership is not None
    async with asyncio.timeout(SLACK_S):
        while membership.ring.nodes.keys() != set(nodes):
            await asyncio.sleep(LOOK_S)


def clustered(**changed: Any) -> dict[str, Any]:
    quick = {"registry": "redis", "lease_s": 60, "heartbeat_s": 0.05, "move_settle_s": 0.0, "move_over_s": 0.0}
    return {"cluster": quick | changed, "gateway": QUICK | REGISTERED, "grpc": {"enabled": False}}


async def test_only_users_of_a_newcomer_are_asked_to_go_there(dsn: str, redis_url: str) -> None:
    async with one_gateway(dsn, redis_url, **clustered()) as server, neighbour(redis_url) as other:
        users = await server.users(24)
        async with sockets_of(users) as sockets:
            await other.come()
            await until_seen(server, OWN, OTHER)
            theirs = owners(server, users)
            assert 0 < len(theirs) < len(users)
            by_user = dict(zip(users, sockets, strict=True))
            await asyncio.gather(*(asked_to_go(socket) for user, socket in by_user.items() if user.id in theirs))
            for user, socket in by_user.items():
                assert user.id in theirs or await stays(socket)
                place = await user.ok("GET", "/gateway")
                assert place["node"] == (OTHER if user.id in theirs else OWN)
            # Who came back although, because the newcomer does not let him in, is left in peace.
            again = next(user for user in users if user.id in theirs)
            async with again.socket() as a:
                await asyncio.sleep(0.3)
                assert await stays(a)


@pytest.mark.parametrize(
    ("options", "neighbours"),
    [
        pytest.param({"move_users": False}, {}, id="told not to"),
        pytest.param({"move_settle_s": 3600}, {}, id="not settled yet"),
        pytest.param({}, {"state": "draining"}, id="it takes nobody"),
    ],
)
async def test_nobody_is_moved(dsn: str, redis_url: str, options: dict[str, Any], neighbours: dict[str, Any]) -> None:
    async with one_gateway(dsn, redis_url, **clustered(**options)) as server:
        users = await server.users(8)
        async with sockets_of(users) as sockets, neighbour(redis_url, **neighbours) as other:
            await other.come()
            if "state" not in neighbours:
                await until_seen(server, OWN, OTHER)
            await asyncio.sleep(0.3)
            assert all([await stays(socket) for socket in sockets])


async def test_moving_ends_when_the_ring_changes_back(dsn: str, redis_url: str) -> None:
    options = clustered(move_over_s=2.4)
    async with one_gateway(dsn, redis_url, **options) as server, neighbour(redis_url) as other:
        users = await server.users(40)
        async with sockets_of(users) as sockets:
            await other.come()
            await until_seen(server, OWN, OTHER)
            owned = owners(server, users)
            theirs = [socket for user, socket in zip(users, sockets, strict=True) if user.id in owned]
            ends = [asyncio.create_task(asked_to_go(socket)) for socket in theirs]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await other.go()
            await until_seen(server, OWN)
            await asyncio.sleep(2.4)
            left = [end for end in ends if not end.done()]
            assert left
            for end in left:
                end.cancel()
            await asyncio.wait(left)
            assert len(server.hubs[0].connections) == len(users) - len(theirs) + len(left)


@pytest.mark.parametrize("state", ["gone", "draining"])
async def test_a_gateway_that_others_leave_alone_stops_waiting(dsn: str, redis_url: str, state: str) -> None:
    options = clustered(move_users=False)
    options["gateway"] |= {"drain_s": 3600}
    async with one_gateway(dsn, redis_url, **options) as server, neighbour(redis_url) as other:
        await other.come()
        await until_seen(server, OWN, OTHER)
        async with sockets_of(await server.users(5)) as sockets:
            draining = asyncio.create_task(drain(server.app))
            await until_seen(server, OTHER)
            assert all([await stays(socket) for socket in sockets])
            if state == "gone":
                await other.go()
            else:
                other.node = replace(other.node, state="draining")
                await other.come()
            async with asyncio.timeout(SLACK_S):
                await asyncio.gather(draining, *map(asked_to_go, sockets))


# A gateway that alone lost the registry


async def test_an_isolated_gateway_lets_everybody_go_and_comes_back(dsn: str, breakable_valkey: ValkeyProcess) -> None:
    access = Access(options(), "k" * 32)
    peer = PushServer(access, Heard(), lambda: True, Metrics(), node_id=OTHER, boot_id="b")
    await peer.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(peer.stop, 1)
        cable = await stack.enter_async_context(cable_to(urlsplit(breakable_valkey.url).path))
        other = await stack.enter_async_context(neighbour(breakable_valkey.url, grpc_address=peer.address))
        await other.come()
        quick = {"registry": "redis", "lease_s": 1.2, "heartbeat_s": 0.4, "timeout_s": 0.4}
        server = await stack.enter_async_context(
            one_gateway(
                dsn,
                f"redis://127.0.0.1:{cable.port}/0",
                cluster=quick | {"move_users": False, "isolated_drain_s": 1.0},
                gateway=QUICK | REGISTERED,
                grpc={"host": "127.0.0.1", "port": 0},
            )
        )
        users = await server.users(10)
        sockets = await stack.enter_async_context(sockets_of(users))
        cable.cut()
        await asyncio.gather(*map(asked_to_go, sockets))
        assert await refused(users[0]) == "unregistered"
        async with server.http.get(f"{server.url}/readyz") as response:
            assert response.status == 503
            assert "registry" in (await response.json())["reasons"]

        cable.mend()
        async with asyncio.timeout(SLACK_S):
            while await refused(users[0]):
                await asyncio.sleep(LOOK_S)
        await until_seen(server, OWN, OTHER)
        async with users[1].socket() as back:
            assert await stays(back)
        view = await other.registry.read()
        assert [node.node_id for node in view.nodes] == [OTHER, OWN]
        async with asyncio.timeout(SLACK_S):
            while parts_of(server).readiness.reasons:
                await asyncio.sleep(LOOK_S)
