"""A whole application in this process, and people who use it over HTTP and WebSocket only."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
from aiohttp import web
from pydantic import SecretStr

from app.delivery.base import Delivery
from app.protocol.frames import SUBPROTOCOL
from app.roles import PARTS, build_app
from app.settings import Settings, load
from tests.splitting import SETUP, split

PASSWORD = "correct1horse"
RECEIVE_S = 10.0

_names = itertools.count(1)


class Socket:
    """A WebSocket of one user. Frames that a test does not ask for are kept, in order."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, *, presence: bool = False) -> None:
        """Without `presence` the socket does not show who comes and goes, of which it is told at any time."""
        self.ws = ws
        self._presence = presence
        self.kept: list[dict[str, Any]] = []
        self._ids = itertools.count(1)

    async def frame(self) -> dict[str, Any]:
        """The next frame from the network."""
        while True:
            frame: dict[str, Any] = await self.ws.receive_json(timeout=RECEIVE_S)
            if self._presence or not frame["type"].startswith("presence"):
                return frame

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first frame, kept or new, that is `wanted`."""
        for index, frame in enumerate(self.kept):
            if wanted(frame):
                return self.kept.pop(index)
        async with asyncio.timeout(RECEIVE_S):
            while True:
                frame = await self.frame()
                if wanted(frame):
                    return frame
                self.kept.append(frame)

    async def event(self, kind: str, /, **fields: Any) -> dict[str, Any]:
        """The first event of this type with these fields."""
        return await self.until(
            lambda f: (
                f["type"] == kind and "id" not in f and all(f.get(name) == value for name, value in fields.items())
            )
        )

    async def request(self, kind: str, /, **fields: Any) -> dict[str, Any]:
        """Send a frame with an id and return its answer."""
        request_id = next(self._ids)
        await self.ws.send_json({"id": request_id, "type": kind, **fields})
        return await self.until(lambda frame: frame.get("id") == request_id)

    async def send(self, group_id: str, body: str, client_msg_id: str | None = None) -> dict[str, Any]:
        """Send a message and return the answer."""
        return await self.request(
            "message.send", group_id=group_id, client_msg_id=client_msg_id or str(uuid.uuid4()), kind="text", body=body
        )

    async def nothing_but_pong(self) -> list[dict[str, Any]]:
        """Everything that came before the answer to a ping sent now."""
        answer = await self.request("ping")
        assert answer["type"] == "ok"
        kept, self.kept = self.kept, []
        return kept

    async def closed(self) -> int | None:
        """Read to the end; the close code."""
        async with asyncio.timeout(RECEIVE_S):
            while (message := await self.ws.receive()).type is aiohttp.WSMsgType.TEXT:
                self.kept.append(message.json())
        # close_code is 1006 when the server was gone before our side of the close was written.
        return message.data if message.type is aiohttp.WSMsgType.CLOSE else self.ws.close_code


class User:
    """A registered person."""

    def __init__(self, server: "Server", name: str, user_id: str, token: str) -> None:
        self.server = server
        self.name = name
        self.id = user_id
        self.token = token

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def call(self, method: str, path: str, json: Any = None, **params: Any) -> tuple[int, Any]:
        """An HTTP call below /api/v1; (status, decoded body or None)."""
        url = f"{self.server.url}/api/v1{path}"
        async with self.server.http.request(method, url, json=json, params=params, headers=self.headers) as response:
            return response.status, await response.json() if response.content_type == "application/json" else None

    async def ok(self, method: str, path: str, json: Any = None, **params: Any) -> Any:
        """An HTTP call that must succeed."""
        status, body = await self.call(method, path, json, **params)
        assert status < 300, (status, body)
        return body

    async def group(self, *members: "User", visibility: str = "open") -> str:
        """A new group of this user with these members; its id."""
        group = await self.ok("POST", "/groups", {"name": f"group {next(_names)}", "visibility": visibility})
        for member in members:
            body = None if visibility == "open" else {"invite_code": await self.invite(group["id"])}
            await member.ok("POST", f"/groups/{group['id']}/join", body or {})
        return str(group["id"])

    async def invite(self, group_id: str) -> str:
        """An invite code."""
        return str((await self.ok("POST", f"/groups/{group_id}/invite", {}))["code"])

    async def post(self, group_id: str, body: str, client_msg_id: str | None = None) -> tuple[int, Any]:
        """Send a message over HTTP."""
        message = {"client_msg_id": client_msg_id or str(uuid.uuid4()), "kind": "text", "body": body}
        return await self.call("POST", f"/groups/{group_id}/messages", message)

    async def history(self, group_id: str, **params: Any) -> list[dict[str, Any]]:
        """One page of history."""
        items: list[dict[str, Any]] = (await self.ok("GET", f"/groups/{group_id}/messages", **params))["items"]
        return items

    @asynccontextmanager
    async def socket(
        self, *, hello: bool = True, gateway: int | None = None, presence: bool = False
    ) -> AsyncIterator[Socket]:
        """A WebSocket that has said hello; at the user's own gateway or at another one."""
        url = self.server.ws_url(self.id if gateway is None else str(gateway))
        async with self.server.http.ws_connect(url, headers=self.headers, protocols=(SUBPROTOCOL,)) as ws:
            socket = Socket(ws, presence=presence)
            if hello:
                assert (await socket.frame())["type"] == "hello"
            yield socket


class Server:
    """A running application, or its roles apart. `app` serves the API at `url`; sockets open at `ws_url`."""

    def __init__(
        self, served: list[tuple[web.Application, str]], settings: Settings, http: aiohttp.ClientSession
    ) -> None:
        self.app, self.url = served[0]
        self.apps = [app for app, _ in served]
        self.urls = [url for _, url in served]
        """Of every process."""
        self.settings = settings
        self.http = http
        gateways = [(app, url) for app, url in served if app[PARTS].settings.role in ("all", "gateway")]
        self._ws_urls = [f"{url}/ws" for _, url in gateways]
        self.nodes = [app[PARTS].node_id for app, _ in gateways]
        """Names of the gateways, in the order of `gateway` of a socket."""
        self.gateways = [app for app, _ in gateways]
        """Their applications."""
        self.hubs = [app[PARTS].gateway.hub for app in self.gateways]
        """Of the gateways, for tests that break connections."""

    def ws_url(self, user_id: str = "0") -> str:
        """The gateway of a user; neighbours in registering have different ones."""
        return self._ws_urls[int(user_id) % len(self._ws_urls)]

    async def user(self, name: str | None = None) -> User:
        """Register somebody."""
        name = name or f"user_{next(_names)}"
        body = {"username": name, "password": PASSWORD}
        async with self.http.post(f"{self.url}/api/v1/auth/register", json=body) as response:
            answer = await response.json()
            assert response.status == 201, answer
        return User(self, name, answer["user"]["id"], answer["token"])

    async def users(self, count: int) -> list[User]:
        """Register several people."""
        return [await self.user() for _ in range(count)]


def settings_for(dsn: str, redis_url: str, **sections: dict[str, Any]) -> Settings:
    """The test settings on these stores; `sections` override single options. Limits are high: a test about limits sets its own."""
    changes: dict[str, dict[str, Any]] = {
        "postgres": {"dsn": SecretStr(dsn), "pool_max": 8},
        "redis": {"url": SecretStr(redis_url)},
        "auth": {"secret": SecretStr("k" * 32)},
        "limits": {
            "register_per_minute": 10_000,
            "login_per_minute": 10_000,
            "send_per_minute": 100_000,
            "api_per_minute": 100_000,
        },
    }
    for name, options in sections.items():
        changes[name] = changes.get(name, {}) | options
    settings = load()
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=options) for name, options in changes.items()}
    )


class _NoCookies(aiohttp.DummyCookieJar):
    """Users of one session must not share cookies."""

    def copy(self) -> Self:
        return self


@asynccontextmanager
async def serving(
    settings: Settings, delivery: Delivery | None = None, *, apart: bool = False
) -> AsyncIterator[Server]:
    """Serve an application on a free port while the block runs; its roles `apart` (two gateways), or where `SETUP` says so.

    With a `delivery` of the test's own it is one process always.
    """
    deaths: list[str] = []
    whole = delivery is not None or (SETUP == "one" and not apart)
    served = one(settings, deaths.append, delivery) if whole else split(settings, deaths.append)
    async with served as applications, aiohttp.ClientSession(cookie_jar=_NoCookies()) as http:
        yield Server(applications, settings, http)
    assert deaths == [], "a background task died"


@asynccontextmanager
async def one(
    settings: Settings, on_death: Callable[[str], None], delivery: Delivery | None
) -> AsyncIterator[list[tuple[web.Application, str]]]:
    """One process with everything."""
    app = build_app(settings, stop=on_death, delivery=delivery)
    runner = web.AppRunner(app, shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield [(app, f"http://127.0.0.1:{runner.addresses[0][1]}")]
    finally:
        await runner.cleanup()
