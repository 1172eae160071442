"""What a real Nginx does when those behind it fail: stand-ins for apis and gateways that answer, break off or refuse as a test wants."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from local.nginx import Nginx
from local.ports import free_ports
from tests.proxied import http_to, logs_of, need_nginx
from tests.services import server_folder

PER_ADDRESS = 8
LOAD_BALANCER = "127.0.0.9"
OPTIONS = (f"--per-address={PER_ADDRESS}", f"--load-balancer={LOAD_BALANCER}")
ENVIRONMENT = {"IM_ENV": "test", "IM_ROLE": "api", "IM_BROKER__KIND": "kafka", "IM_DELIVERY__KIND": "redis_pubsub"}

pytestmark = [pytest.mark.xdist_group("nginx"), pytest.mark.asyncio(loop_scope="module")]


async def hello(request: web.Request) -> web.StreamResponse:
    return web.json_response({})


class StandIns:
    """Two apis and two gateways. Every request goes to `answer`; `came` has those since the last reset."""

    def __init__(self, nginx: Nginx, http: aiohttp.ClientSession) -> None:
        self.nginx = nginx
        self.http = http
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = hello
        self.came: list[web.Request] = []

    def behave(self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self.answer = answer
        self.came.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.came.append(request)
        return await self.answer(request)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand_ins() -> AsyncIterator[StandIns]:
    """Behind an Nginx of their own."""
    need_nginx()
    with server_folder() as folder:
        port, http_port, *ports = free_ports(6)
        nginx = Nginx(folder, port, http_port)
        public = {"IM_HTTP__PUBLIC_URL": nginx.url, "IM_HTTP__TRUSTED_PROXIES": "127.0.0.1"}
        addresses = [f"127.0.0.1:{one}" for one in ports]
        gateways = {"g1": addresses[2], "g2": addresses[3]}
        await nginx.configure(addresses[:2], gateways, ENVIRONMENT | public, OPTIONS)
        await nginx.start()
        async with http_to(nginx) as http:
            made = StandIns(nginx, http)
            runners = []
            for one in ports:
                app = web.Application()
                app.router.add_route("*", "/{path:.*}", made.handle)
                runners.append(web.AppRunner(app, access_log=None))
                await runners[-1].setup()
                await web.TCPSite(runners[-1], "127.0.0.1", one).start()
            yield made
            for runner in runners:
                await runner.cleanup()
        await nginx.stop()


@pytest.fixture(autouse=True)
async def calm(stand_ins: StandIns) -> None:
    stand_ins.behave(hello)


async def break_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def port_of(request: web.Request) -> web.StreamResponse:
    return web.json_response(request.transport.get_extra_info("sockname")[1] if request.transport else 0)


async def until_both_are_asked(stand_ins: StandIns, path: str) -> None:
    """Who broke off twice for an earlier test is left alone for 5 s."""
    stand_ins.behave(port_of)
    seen: set[int] = set()
    async with asyncio.timeout(20):
        while len(seen) < 2:
            async with stand_ins.http.get(path) as answer:
                seen.add(await answer.json())
            await asyncio.sleep(0.05)


async def test_nginx_has_nothing_to_say_about_its_configuration(stand_ins: StandIns) -> None:
    said = await stand_ins.nginx.check()
    assert "test is successful" in said
    assert "[" not in said


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_what_may_have_taken_effect_is_not_repeated(stand_ins: StandIns, method: str) -> None:
    stand_ins.behave(break_off)
    async with stand_ins.http.request(method, "/api/v1/groups", json={"name": "x"}) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["outcome"]) == (502, "internal", "unknown")
        assert answer.headers["X-Request-Id"] == error["request_id"]
        assert answer.headers["Cache-Control"] == "no-store"
    assert len(stand_ins.came) == 1


async def test_a_question_is_asked_of_the_other_api_when_one_breaks_off(stand_ins: StandIns) -> None:
    async def first_breaks(request: web.Request) -> web.StreamResponse:
        return await (break_off if len(stand_ins.came) == 1 else port_of)(request)

    stand_ins.behave(first_breaks)
    async with stand_ins.http.get("/api/v1/me") as answer:
        assert answer.status == 200
    assert len(stand_ins.came) == 2


async def test_busy_is_an_answer_and_passes_with_its_wait(stand_ins: StandIns) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"code": "busy"}}, status=503, headers={"Retry-After": "7"})

    stand_ins.behave(busy)
    async with stand_ins.http.get("/api/v1/me") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
        assert (await answer.json())["error"]["code"] == "busy"
    assert len(stand_ins.came) == 1


async def test_what_a_client_says_about_itself_is_replaced(stand_ins: StandIns) -> None:
    forged = {
        "X-Forwarded-For": "8.8.8.8",
        "X-Forwarded-Proto": "ftp",
        "X-Forwarded-Host": "evil.example",
        "X-Real-IP": "8.8.8.8",
        "Forwarded": "for=8.8.8.8",
        "Upgrade": "h2c",
        "Connection": "Upgrade",
    }
    own = f"localhost:{stand_ins.nginx.port}"
    for path in ("/api/v1/me", "/ws", "/ws/g1", "/", "/assets/none.js"):
        stand_ins.behave(hello)
        async with stand_ins.http.get(path, headers=forged) as answer:
            assert answer.status == 200
        headers = stand_ins.came[0].headers
        assert headers.getall("X-Forwarded-For") == ["127.0.0.1"], path
        assert headers.getall("X-Forwarded-Proto") == ["https"], path
        assert headers.getall("X-Forwarded-Host") == headers.getall("Host") == [own], path
        assert not {"Forwarded", "X-Real-IP", "Upgrade"} & set(headers), path


@pytest.mark.parametrize("path", ["/ws", "/ws/g1"])
async def test_a_socket_that_could_not_be_opened_is_not_tried_elsewhere(stand_ins: StandIns, path: str) -> None:
    """Its ticket may be used up."""
    stand_ins.behave(break_off)
    async with stand_ins.http.get(path, params={"ticket": "ThisIsATicket"}) as answer:
        assert answer.status == 502
    assert len(stand_ins.came) == 1
    await asyncio.sleep(1.2)  # the access log is written once a second; what must not be there cannot be waited for
    assert "ThisIsATicket" not in logs_of(stand_ins.nginx)
    lines = [json.loads(line) for line in (stand_ins.nginx.folder / "access.log").read_text().splitlines()]
    assert any((line["url.path"], line["upstream_status"]) == (path, "502") for line in lines)


@pytest.mark.parametrize("path", ["/ws", "/api/v1/me"])
async def test_who_refuses_at_once_does_not_draw_everybody(stand_ins: StandIns, path: str) -> None:
    await until_both_are_asked(stand_ins, path)
    going_on = asyncio.Event()
    ports: list[int] = []

    async def one_refuses(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.append(request.transport.get_extra_info("sockname")[1])
        if ports[-1] != ports[0]:
            return web.Response(status=503)
        await going_on.wait()
        return web.Response()

    async def ask() -> int:
        async with stand_ins.http.get(path) as answer:
            return answer.status

    stand_ins.behave(one_refuses)
    async with asyncio.TaskGroup() as tasks:
        for number in range(1, 7):
            tasks.create_task(ask())
            while len(ports) < number:
                await asyncio.sleep(0.01)
        going_on.set()
    assert ports.count(ports[0]) == 3


@pytest.mark.parametrize("node", ["g1", "g2"])
async def test_a_node_id_leads_to_its_gateway(stand_ins: StandIns, node: str) -> None:
    stand_ins.behave(port_of)
    ports = set()
    for _ in range(6):
        async with stand_ins.http.get(f"/ws/{node}") as answer:
            ports.add(await answer.json())
    assert len(ports) == 1


@pytest.mark.parametrize("path", ["/ws", "/ws/", "/ws/g3", "/ws/g1/x", "/ws/$gateway", "/ws/apis"])
async def test_any_other_id_leads_to_any_gateway(stand_ins: StandIns, path: str) -> None:
    stand_ins.behave(port_of)
    ports = set()
    for _ in range(6):
        async with stand_ins.http.get(path) as answer:
            ports.add(await answer.json())
    assert len(ports) == 2


async def test_a_load_balancer_is_believed_about_who_comes_through_it(stand_ins: StandIns) -> None:
    async with http_to(stand_ins.nginx, LOAD_BALANCER) as http:
        forwarded = {"X-Forwarded-For": f"8.8.8.8, 2001:db8::1, {LOAD_BALANCER}"}
        async with http.get("/api/v1/me", headers=forwarded) as answer:
            assert answer.status == 200
    assert stand_ins.came[0].headers.getall("X-Forwarded-For") == ["2001:db8::1"]


@pytest.mark.parametrize(
    ("crowd", "other"), [("10.0.0.1", "10.0.0.2"), ("2001:db8:0:1::1", "2001:db8:0:2::1"), ("::1", "2001:db8::1")]
)
async def test_one_address_cannot_take_every_connection(stand_ins: StandIns, crowd: str, other: str) -> None:
    going_on = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        await going_on.wait()
        return web.json_response({})

    async def ask(http: aiohttp.ClientSession, address: str) -> tuple[int, str | None]:
        async with http.get("/api/v1/me", headers={"X-Forwarded-For": address}) as answer:
            await answer.read()
            return answer.status, answer.headers.get("Retry-After")

    async def came(count: int) -> None:
        while len(stand_ins.came) < count:
            await asyncio.sleep(0.01)

    # An IPv6 network of a customer is one address.
    members = [f"{crowd}{number}" if ":" in crowd else crowd for number in range(PER_ADDRESS)]
    stand_ins.behave(wait)
    async with http_to(stand_ins.nginx, LOAD_BALANCER) as http, asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(ask(http, member)) for member in members]
        await came(PER_ADDRESS)
        assert await ask(http, crowd) == (429, "5")
        waiting.append(tasks.create_task(ask(http, other)))
        await came(PER_ADDRESS + 1)
        going_on.set()
        assert {await task for task in waiting} == {(200, None)}


async def test_plain_http_is_sent_to_the_one_name(stand_ins: StandIns) -> None:
    url = f"http://127.0.0.1:{stand_ins.nginx.http_port}/login?lang=zh"
    async with stand_ins.http.get(url, headers={"Host": "evil.example"}, allow_redirects=False) as answer:
        assert answer.status == 308
        assert answer.headers["Location"] == f"{stand_ins.nginx.url}/login?lang=zh"
