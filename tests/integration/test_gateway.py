"""The WebSocket gateway as clients meet it: who gets in, what bad input does, slow and silent readers, the end of a session."""

import asyncio
import base64
import os
import socket
import uuid
from collections.abc import AsyncIterator
from typing import Any, Self

import aiohttp
import pytest

from app.protocol.frames import SUBPROTOCOL
from tests.running import Server, User, serving, settings_for

OWN_ORIGIN = "https://chat.example.org"


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url, http={"allowed_origins": (OWN_ORIGIN,)})) as server:
        yield server


async def upgrade_status(server: Server, **options: Any) -> int:
    try:
        ws = await server.http.ws_connect(server.ws_url(), **({"protocols": (SUBPROTOCOL,)} | options))
    except aiohttp.WSServerHandshakeError as error:
        return error.status
    await ws.close()
    return 101


async def test_hello_tells_a_client_what_it_needs(server: Server) -> None:
    ann = await server.user()
    async with ann.socket(hello=False) as a:
        hello = await a.frame()
    assert hello["type"] == "hello"
    assert hello["user_id"] == ann.id
    assert hello["limits"]["body_code_points"] == 2000
    assert set(hello["backoff"]) == {"base_ms", "max_ms", "jitter"}
    assert hello["epoch"]


async def test_only_valid_credentials_get_in(server: Server) -> None:
    ann = await server.user()
    assert await upgrade_status(server, headers=ann.headers) == 101
    assert await upgrade_status(server) == 401
    assert await upgrade_status(server, headers={"Authorization": "Bearer nonsense"}) == 401
    assert await upgrade_status(server, headers={"Authorization": "Basic abc"}) == 401
    assert await upgrade_status(server, headers=ann.headers, protocols=("other",)) == 422
    ticket = (await ann.ok("POST", "/tickets"))["ticket"]
    assert await upgrade_status(server, params={"ticket": ticket}) == 101
    assert await upgrade_status(server, params={"ticket": ticket}) == 401
    assert await upgrade_status(server, params={"ticket": "x" * 5000}) == 401
    await ann.ok("POST", "/auth/logout")
    async with asyncio.timeout(5):
        # Another process hears of it a moment later; until then the socket is closed as soon as it is open.
        while await upgrade_status(server, headers=ann.headers) != 401:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("frame", "code", "has_id"),
    [
        ("", "bad_request", False),
        ("nonsense", "bad_request", False),
        ("[]", "bad_request", False),
        ("[" * 20_000, "bad_request", False),
        ('{"type": "ping"}', "bad_request", False),
        ('{"type": "unknown", "id": 5}', "bad_request", True),
        ('{"type": "ping", "id": 5, "extra": 1}', "bad_request", True),
        ('{"type": "ping", "id": -1}', "bad_request", False),
        ('{"type": "ping", "id": 9007199254740993}', "bad_request", False),
        ('{"type": "group.focus", "id": 5, "group_id": "0"}', "bad_request", True),
        ('{"type": "group.focus", "id": 5, "group_id": 12}', "bad_request", True),
        ('{"type": "group.focus", "id": 5, "group_id": "9999999999999999999"}', "bad_request", True),
        ('{"type": "group.focus", "id": 5, "group_id": "12"}', "not_found", True),
        ('{"type": "message.read", "id": 5, "group_id": "12", "seq": 1}', "not_found", True),
        ('{"type": "message.read", "id": 5, "group_id": "12", "seq": -1}', "bad_request", True),
        ('{"type": "message.read", "id": 5, "group_id": "12", "seq": 1e400}', "bad_request", True),
        ('{"type": "resume", "id": 5, "groups": {"x": {"seq": 1}}}', "bad_request", True),
        ('{"type": "message.send", "id": 5, "group_id": "12", "client_msg_id": "x", "kind": "text", "body": "b"}', "bad_request", True),
        (
            ('{"type": "message.send", "id": 5, "group_id": "12", "client_msg_id": "6d1c0f3e-7a53-4a9e-9d2f-111111111111",'
            ' "kind": "image", "body": "b"}'),
            "bad_request",
            True,
        ),
        (
            ('{"type": "message.send", "id": 5, "group_id": "12", "client_msg_id": "6d1c0f3e-7a53-4a9e-9d2f-111111111111",'
            ' "kind": "text", "body": "a\\u0000b"}'),
            "bad_request",
            True,
        ),
        (
            ('{"type": "message.send", "id": 5, "group_id": "12", "client_msg_id": "6d1c0f3e-7a53-4a9e-9d2f-111111111111",'
            ' "kind": "text", "body": "nobody is here"}'),
            "not_found",
            True,
        ),
    ],
)  # fmt: skip
async def test_bad_frames_are_answered_and_the_connection_stays(
    server: Server, frame: str, code: str, has_id: bool
) -> None:
    ann = await server.user()
    async with ann.socket() as a:
        await a.ws.send_str(frame)
        error = await a.until(lambda f: f["type"] == "error")
        assert (error["code"], error["outcome"]) == (code, "none")
        assert error.get("id") == (5 if has_id else None)
        assert "Traceback" not in error["message"]
        assert (await a.request("ping"))["type"] == "ok"


async def test_frames_too_large_or_binary_end_the_connection(server: Server) -> None:
    ann = await server.user()
    async with ann.socket() as a:
        await a.ws.send_str('{"type": "ping", "id": 1, "x": "' + "x" * 70_000 + '"}')
        assert await a.closed() == 1009
    async with ann.socket() as a:
        await a.ws.send_bytes(b"\x00\x01")
        assert await a.closed() == 4502


async def test_too_many_frames_are_refused_with_a_time_to_wait(server: Server) -> None:
    ann = await server.user()
    async with ann.socket() as a:
        answers = [await a.request("ping") for _ in range(40)]
        refused = [answer for answer in answers if answer["type"] == "error"]
        assert refused
        assert {answer["code"] for answer in refused} == {"rate_limited"}
        assert all(0 < answer["retry_after_ms"] <= 1000 for answer in refused)


async def test_sends_over_both_ways_share_one_limit(dsn: str, redis_url: str) -> None:
    settings = settings_for(dsn, redis_url, limits={"send_per_minute": 5})
    async with serving(settings) as server:
        ann = await server.user()
        group = await ann.group()
        async with ann.socket() as a:
            answers = [await a.send(group, "x") for _ in range(3)]
            assert [answer["type"] for answer in answers] == ["ok"] * 3
            assert [(await ann.post(group, "x"))[0] for _ in range(3)] == [201, 201, 429]
            refused = await a.send(group, "x")
            assert (refused["code"], refused["outcome"]) == ("rate_limited", "none")
            assert 0 < refused["retry_after_ms"] <= 60_000


async def test_logging_out_closes_the_sockets_of_that_session_only(server: Server) -> None:
    ann = await server.user()
    body = {"username": ann.name, "password": "correct1horse"}
    async with server.http.post(f"{server.url}/api/v1/auth/login", json=body) as response:
        other = User(server, ann.name, ann.id, (await response.json())["token"])
    async with ann.socket() as a, ann.socket() as b, other.socket() as stays:
        await ann.ok("POST", "/auth/logout")
        async with asyncio.timeout(5):
            assert [await a.closed(), await b.closed()] == [4501, 4501]
        assert (await stays.request("ping"))["type"] == "ok"


async def test_an_expired_token_closes_its_socket(dsn: str, redis_url: str) -> None:
    settings = settings_for(dsn, redis_url, auth={"token_ttl_s": 2}, gateway={"sweep_interval_s": 0.05})
    async with serving(settings) as server:
        ann = await server.user()
        async with ann.socket() as a, asyncio.timeout(5):
            assert await a.closed() == 4501


async def test_half_open_clients_are_reaped_and_living_ones_stay_and_are_told(dsn: str, redis_url: str) -> None:
    settings = settings_for(
        dsn,
        redis_url,
        gateway={"heartbeat_s": 0.4, "sweep_interval_s": 0.05},
        presence={"grace_s": 0.1, "sweep_s": 0.05},
    )
    async with serving(settings) as server:
        ann, bob = await server.users(2)
        await ann.group(bob)
        async with bob.socket(presence=True) as living:

            async def told() -> dict[str, Any]:
                await living.event("presence", user_id=ann.id, state="online")
                return await living.event("presence", user_id=ann.id)

            went = asyncio.ensure_future(told())
            async with DeafClient(server, ann) as silent, asyncio.timeout(10):
                # It says nothing more, and nothing comes of its end either.
                assert (await went)["state"] == "offline"
                with pytest.raises(ConnectionResetError):
                    await silent.read_until(b"never")
            assert (await living.request("ping"))["type"] == "ok"


class DeafClient:
    """A WebSocket client that does not read, with a small receive buffer."""

    def __init__(self, server: Server, user: User) -> None:
        self._server = server
        self._user = user
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        self.socket.setblocking(False)
        self.data = b""

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        host, port = (
            self._server.ws_url(self._user.id)
            .removeprefix("ws://")
            .removeprefix("http://")
            .removesuffix("/ws")
            .split(":")
        )
        await loop.sock_connect(self.socket, (host, int(port)))
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
            f"Authorization: Bearer {self._user.token}\r\n\r\n"
        )
        await loop.sock_sendall(self.socket, request.encode())
        await self.read_until(b'"type":"hello"')

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.socket.close()

    async def read_until(self, wanted: bytes) -> None:
        async with asyncio.timeout(10):
            while wanted not in self.data:
                chunk = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
                if not chunk:
                    raise ConnectionResetError
                self.data += chunk


async def flood(sender: User, group: str, count: int) -> None:
    for _ in range(0, count, 50):
        results = await asyncio.gather(*(sender.post(group, "字" * 1900) for _ in range(50)))
        assert {status for status, _ in results} == {201}


async def test_a_slow_reader_gets_a_gap_when_it_reads_again_and_others_feel_nothing(dsn: str, redis_url: str) -> None:
    gateway = {"buffer_bytes": 300_000, "slow_close_s": 30.0, "sweep_interval_s": 0.05}
    async with serving(settings_for(dsn, redis_url, gateway=gateway)) as server:
        ann, bob, deaf = await server.users(3)
        group = await ann.group(bob, deaf)
        async with DeafClient(server, deaf) as client, bob.socket() as b:
            # Beyond its own buffer, and twice that of the gateway.
            flooding = asyncio.ensure_future(flood(ann, group, 300))
            have = 0
            while have < 300:
                packet = await b.event("messages")
                assert packet["prev_seq"] == have
                have = packet["items"][-1]["seq"]
            await flooding
            await client.read_until(b'"type":"gap"')
            assert b'"seq":300' not in client.data


async def until_counted(server: Server, user: User, line: str) -> None:
    """Wait until the gateway of a user says this about itself."""
    async with asyncio.timeout(5):
        while True:
            async with server.http.get(server.ws_url(user.id).removesuffix("/ws") + "/metrics") as response:
                if line in await response.text():
                    return
            await asyncio.sleep(0.05)


async def test_a_reader_that_never_drains_is_closed(dsn: str, redis_url: str) -> None:
    gateway = {"buffer_bytes": 20_000, "slow_close_s": 0.3, "sweep_interval_s": 0.05, "close_timeout_s": 0.2}
    async with serving(settings_for(dsn, redis_url, gateway=gateway)) as server:
        ann, deaf = await server.users(2)
        group = await ann.group(deaf)
        async with DeafClient(server, deaf) as client, ann.socket() as a:
            await flood(ann, group, 150)
            await until_counted(server, deaf, 'im_connections_closed_total{code="4001"} 1.0')
            with pytest.raises(ConnectionResetError):
                await client.read_until(b"never sent")
            # The kernel took little for the deaf one, and does not go on sending it.
            assert len(client.data) < 400_000
            assert (await a.request("ping"))["type"] == "ok"


async def test_busy_says_when_to_come_back_and_nothing_of_it_appears(dsn: str, redis_url: str) -> None:
    settings = settings_for(dsn, redis_url, producer={"per_connection": 4}, consumer={"pace_ms": 1000.0})
    async with serving(settings) as server:
        ann = await server.user()
        group = await ann.group()
        async with ann.socket() as a:
            # The batch after this one has to wait, and with it the answers.
            await a.send(group, "before")
            for number in range(10):
                await a.ws.send_json(
                    {
                        "id": 100 + number, "type": "message.send", "group_id": group, "kind": "text",
                        "client_msg_id": str(uuid.uuid4()), "body": f"{number}",
                    }
                )  # fmt: skip
            answers = [await a.until(lambda f, n=n: f.get("id") == 100 + n) for n in range(10)]  # type: ignore[misc]
        busy = [number for number, answer in enumerate(answers) if answer["type"] == "error"]
        assert len(busy) == 6
        assert all(answers[n]["code"] == "busy" and answers[n]["outcome"] == "none" for n in busy)
        assert all(answers[n]["retry_after_ms"] >= 100 for n in busy)
        assert [m["body"] for m in await ann.history(group)] == ["before", "0", "1", "2", "3"]


async def test_a_revoked_session_is_told_why(server: Server) -> None:
    ann = await server.user()
    async with ann.socket() as a:
        await ann.ok("POST", "/auth/logout")
        assert (await a.event("kick"))["reason"] == "logged out"
        assert await a.closed() == 4501
