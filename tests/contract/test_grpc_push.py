"""Answers by gRPC: they arrive, once or doubled, whatever happens to the gateway and the way there."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from app.cluster.grpc_peers import GrpcPeers
from app.cluster.membership import Sight
from app.delivery.grpc_access import Access
from app.errors import ConfigError
from app.lifecycle import Supervisor
from app.protocol.magpie_pb2 import Answer, Answers
from tests.certificates import Authority
from tests.contract.pushing import SECRET, SLACK_S, Gateway, calling, options, serving, until, wire

MANY = range(1, 201)


async def test_answers_come_by_grpc_once_the_gateway_is_known(supervisor: Supervisor) -> None:
    async with serving(Gateway()) as gateway, calling(supervisor, gateway.node()) as caller:
        await caller.answer(1)
        assert caller.behind.answers == [1], "nobody waits for a connection"
        await caller.until_reached()
        await caller.answer(2, 3)
        await caller.answer(4)
        assert gateway.heard.answers == [2, 3, 4]
        assert caller.behind.answers == [1]
        assert caller.count("im_push_fallbacks_total") == 1
        assert caller.count("im_push_peers_away") == 0


async def test_two_hundred_answers_are_one_call(supervisor: Supervisor) -> None:
    async with serving(Gateway()) as gateway, calling(supervisor, gateway.node()) as caller:
        await caller.until_reached()
        await caller.answer(*MANY)
        assert gateway.heard.answers == list(MANY)
        assert caller.calls() == 1
        assert caller.count("im_push_items_sum") == 200


async def test_what_comes_during_a_call_goes_with_the_next_in_order(supervisor: Supervisor) -> None:
    async with serving(Gateway()) as gateway, calling(supervisor, gateway.node()) as caller:
        await caller.until_reached()
        await asyncio.gather(*(caller.answer(number) for number in MANY))
        assert gateway.heard.answers == list(MANY)
        assert caller.calls() <= 3


async def test_what_comes_during_the_last_call_is_not_forgotten(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(Gateway()) as gateway, calling(supervisor, gateway.node()) as caller:
        await caller.until_reached()
        during: list[asyncio.Task[None]] = []
        take = gateway.heard.on_answers

        def push_once_more(answers: Answers) -> None:
            take(answers)
            if not during:
                # The reply to the first call is still to be sent.
                during.append(asyncio.ensure_future(caller.answer(2)))

        monkeypatch.setattr(gateway.heard, "on_answers", push_once_more)
        async with asyncio.timeout(SLACK_S):
            await caller.answer(1)
            await during[0]
        assert gateway.heard.answers == [1, 2]


async def test_a_batch_above_the_size_of_a_message_is_split(supervisor: Supervisor) -> None:
    small: dict[str, Any] = {"max_message_bytes": 65536}
    async with serving(Gateway(**small)) as gateway, calling(supervisor, gateway.node(), **small) as caller:
        await caller.until_reached()
        answers = [Answers(boot_id="b", answers=[Answer(request_id=n, item=bytes(1000)) for n in MANY])]
        await caller.delivery.answer({"g1": answers})
        assert gateway.heard.answers == list(MANY)
        assert 4 <= caller.calls() <= 8


async def test_answers_for_another_life_or_an_unknown_node_go_behind(supervisor: Supervisor) -> None:
    async with serving(Gateway()) as gateway, calling(supervisor, gateway.node()) as caller:
        await caller.until_reached()
        await caller.answer(1, boot_id="earlier")
        await caller.answer(2, node="api1")
        mixed = [Answers(boot_id=boot_id, answers=[Answer(request_id=n)]) for boot_id, n in (("b", 3), ("next", 4))]
        await caller.delivery.answer({"g1": mixed})
        assert gateway.heard.answers == [3]
        assert caller.behind.answers == [1, 2, 4]
        assert caller.count("im_push_fallbacks_total") == 0


async def test_a_dead_gateway_costs_nothing_and_is_found_again(supervisor: Supervisor) -> None:
    first = Gateway()
    async with serving(first), calling(supervisor, first.node()) as caller:
        await caller.until_reached()
        await first.server.stop(0)
        await caller.answer(1)
        await caller.answer(2)
        assert caller.behind.answers == [1, 2]
        assert caller.count("im_push_peers_away") == 1
        async with serving(Gateway(port=first.node().grpc_address.rpartition(":")[2])) as again:
            await caller.until_reached()
            await caller.answer(3)
            assert again.heard.answers == [3]


async def test_a_frozen_gateway_costs_one_deadline_and_doubles_at_most(supervisor: Supervisor) -> None:
    async with (
        serving(Gateway()) as gateway,
        wire(gateway.server.port) as way,
        calling(supervisor, gateway.node(way.port), deadline_ms=300) as caller,
    ):
        await caller.until_reached()
        way.freeze()
        began = time.monotonic()
        await caller.answer(1)
        assert time.monotonic() - began >= 0.25
        assert caller.calls("deadline") == 1
        began = time.monotonic()
        for number in range(2, 52):
            await caller.answer(number)
        assert time.monotonic() - began < 0.25, "fifty deadlines would take fifteen seconds"
        assert caller.behind.answers == list(range(1, 52))
        way.thaw()
        await caller.until_reached()
        await caller.answer(52)
        # The first had been carried out, if late, or not.
        assert gateway.heard.answers in ([1, 52], [52])


async def test_who_accepts_and_never_answers_costs_nothing(supervisor: Supervisor) -> None:
    async with serving(Gateway()) as gateway, wire(gateway.server.port) as way:
        way.freeze()
        async with calling(supervisor, gateway.node(way.port), deadline_ms=200) as caller:
            for number in range(1, 4):
                await caller.answer(number)
                await asyncio.sleep(0.15)  # several tries to connect fail meanwhile
            assert caller.behind.answers == [1, 2, 3]
            assert caller.calls("deadline") == 0
            way.thaw()
            await caller.until_reached()


async def test_answers_that_wait_for_a_frozen_gateway_are_bounded(supervisor: Supervisor) -> None:
    async with (
        serving(Gateway()) as gateway,
        wire(gateway.server.port) as way,
        calling(supervisor, gateway.node(way.port), deadline_ms=1000, waiting_max=10) as caller,
    ):
        await caller.until_reached()
        way.freeze()
        under_way = asyncio.create_task(caller.answer(1))
        await asyncio.sleep(0.1)  # the call begins
        waiting = asyncio.create_task(caller.answer(*range(2, 12)))
        await asyncio.sleep(0)
        await caller.answer(12)
        assert caller.behind.answers == [12], "at once, past those that wait"
        await asyncio.gather(under_way, waiting)
        assert sorted(caller.behind.answers) == list(range(1, 13))


async def test_a_silent_connection_is_kept_alive_and_kept(supervisor: Supervisor) -> None:
    alive: dict[str, Any] = {"keepalive_s": 1.0}
    async with (
        serving(Gateway(**alive)) as gateway,
        wire(gateway.server.port) as way,
        calling(supervisor, gateway.node(way.port), **alive) as caller,
    ):
        await caller.until_reached()
        await asyncio.sleep(4.5)  # gRPC's default is to hang up at the third ping
        await caller.answer(1)
        assert gateway.heard.answers == [1]
        assert way.connections == 1


async def test_a_process_that_took_the_address_over_gets_nothing(supervisor: Supervisor) -> None:
    first = Gateway()
    async with serving(first), calling(supervisor, first.node()) as caller:
        await caller.until_reached()
        port = first.server.port
        await first.server.stop(0)
        async with serving(Gateway(boot_id="new", port=port)) as second:
            await until(
                lambda: second.metrics.pushes_refused.labels("address")._value.get() > 0, lambda: caller.answer(1)
            )
            assert set(caller.behind.answers) == {1}
            assert second.heard.answers == []
            # The registry says so a moment later.
            caller.register(second.node())
            await caller.until_reached(boot_id="new")
            await caller.answer(2, boot_id="new")
            assert second.heard.answers == [2]


async def test_a_gateway_that_leaves_the_ring_is_let_go(supervisor: Supervisor) -> None:
    async with serving(Gateway()) as gateway, calling(supervisor, gateway.node()) as caller:
        await caller.until_reached()
        caller.register()
        await until(lambda: not caller.delivery._peers)
        await caller.answer(1)
        assert caller.behind.answers == [1]
        assert caller.count("im_push_fallbacks_total") == 0


async def test_without_the_token_nothing_is_done(supervisor: Supervisor) -> None:
    async with (
        serving(Gateway(secret="another secret of this length....")) as gateway,
        calling(supervisor, gateway.node()) as caller,
    ):
        refused = gateway.metrics.pushes_refused.labels("token")._value
        await until(lambda: refused.get() > 1, lambda: caller.answer(1))
        assert set(caller.behind.answers) == {1}
        assert gateway.heard.answers == []


async def test_a_token_may_be_set_instead(supervisor: Supervisor) -> None:
    token = "t" * 32
    async with (
        serving(Gateway(secret="another", token=token)) as gateway,
        calling(supervisor, gateway.node(), token=token) as caller,
    ):
        await caller.until_reached()


async def test_stopping_hands_what_waits_to_the_delivery_behind(supervisor: Supervisor) -> None:
    async with (
        serving(Gateway()) as gateway,
        wire(gateway.server.port) as way,
        calling(supervisor, gateway.node(way.port)) as caller,
    ):
        await caller.until_reached()
        way.freeze()
        answering = asyncio.create_task(caller.answer(1))
        await asyncio.sleep(0.1)  # the call begins
        await caller.delivery.stop()
        await answering
        assert caller.behind.answers == [1]


@pytest.mark.parametrize("tls", ["on", "mutual"])
async def test_tls(supervisor: Supervisor, tmp_path: Path, tls: str) -> None:
    authority = Authority(tmp_path)
    certificate, key, _ = authority.issue("gateway")
    files: dict[str, Any] = {"tls": tls, "ca_file": str(authority.file)}
    own: dict[str, Any] = {"cert_file": str(certificate), "key_file": str(key)}
    async with serving(Gateway(**files, **own)) as gateway:
        async with calling(supervisor, gateway.node(), **files, **(own if tls == "mutual" else {})) as caller:
            await caller.until_reached()
            await caller.answer(1)
            assert gateway.heard.answers == [1]
        (tmp_path / "other").mkdir()
        stranger = {"tls": tls, "ca_file": str(Authority(tmp_path / "other").file)}
        plain: dict[str, Any] = {}
        for changed in (stranger, plain, *([files] if tls == "mutual" else [])):
            async with calling(supervisor, gateway.node(), deadline_ms=200, **changed) as caller:
                await caller.until_refused()
                await caller.answer(2)
                assert caller.behind.answers == [2]
        assert gateway.heard.answers == [1]


@pytest.mark.parametrize("broken", ["ca_file", "cert_file", "key_file"])
async def test_a_certificate_that_cannot_be_used_is_a_sentence(tmp_path: Path, broken: str) -> None:
    authority = Authority(tmp_path)
    certificate, key, _ = authority.issue("gateway")
    (tmp_path / "empty").write_text("nothing")
    files: dict[str, Any] = {"ca_file": str(authority.file), "cert_file": str(certificate), "key_file": str(key)}
    gateway = Gateway(tls="on", **files | {broken: str(tmp_path / "empty")})
    with pytest.raises(ConfigError, match=r"certificate of grpc\.\*_file cannot be used"):
        await gateway.server.start()


async def test_a_taken_port_is_a_sentence() -> None:
    async with serving(Gateway()) as gateway:
        with pytest.raises(ConfigError, match=r"gRPC cannot listen on 127.0.0.1:.* set IM_GRPC__PORT"):
            await Gateway(port=gateway.server.port).server.start()


@pytest.mark.parametrize("service", ["", "magpie.v1.GatewayPush"])
async def test_anybody_may_ask_for_health(service: str) -> None:
    async with serving(Gateway()) as gateway, grpc.aio.insecure_channel(gateway.node().grpc_address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        answer = await check(HealthCheckRequest(service=service))
        assert answer.status == HealthCheckResponse.SERVING
        gateway.ready = False
        answer = await check(HealthCheckRequest(service=service))
        assert answer.status == HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("magpie.v1.GatewayPush/Push", grpc.StatusCode.UNAUTHENTICATED),
        ("magpie.v1.GatewayPush/SeesRegistry", grpc.StatusCode.UNAUTHENTICATED),
        ("grpc.health.v1.Health/Check", grpc.StatusCode.OK),
        ("grpc.health.v1.Health/Watch", grpc.StatusCode.UNIMPLEMENTED),
    ],
)
async def test_nobody_without_the_token_holds_a_call(
    supervisor: Supervisor, method: str, code: grpc.StatusCode
) -> None:
    async with serving(Gateway(concurrent_max=2)) as gateway:
        address = gateway.node().grpc_address
        async with grpc.aio.insecure_channel(address) as channel, calling(supervisor, gateway.node()) as caller:
            # Begun, and nothing follows.
            begun: list[grpc.aio.StreamUnaryCall[bytes, bytes]] = [
                channel.stream_unary(f"/{method}")() for _ in range(10)
            ]
            async with asyncio.timeout(SLACK_S):
                assert {await call.code() for call in begun} <= {code, grpc.StatusCode.RESOURCE_EXHAUSTED}
            await caller.until_reached()


async def test_gateways_tell_each_other_whether_they_see_the_registry() -> None:
    peers = GrpcPeers(Access(options(), SECRET), timeout_s=SLACK_S)
    async with (
        serving(Gateway("sees")) as sees,
        serving(Gateway("blind", sees=False)) as blind,
        serving(Gateway("foreign", secret="another")) as foreign,
        serving(Gateway("dead")) as dead,
    ):
        await dead.server.stop(0)
        moved = Gateway("moved").node(sees.server.port)
        nodes = [each.node() for each in (sees, blind, foreign, dead)]
        assert await peers.sees_registry([*nodes, moved]) == Sight(yes=1, no=1, silent=3)
        assert await peers.sees_registry([]) == Sight(0, 0, 0)


async def test_a_gateway_that_does_not_answer_in_time_is_silent() -> None:
    peers = GrpcPeers(Access(options(), SECRET), timeout_s=0.3)
    async with serving(Gateway("frozen")) as frozen, wire(frozen.server.port) as way:
        way.freeze()
        assert await peers.sees_registry([frozen.node(way.port)]) == Sight(yes=0, no=0, silent=1)
