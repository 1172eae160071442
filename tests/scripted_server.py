"""A server that does what a test's script says: it stores what is sent, and fails where it is told to."""

import asyncio
import json
from collections import deque
from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from app.protocol import frames
from app.protocol.frames import Message

ME, OTHER = "5", "6"


class ScriptedServer:
    """Speaks the client's half of protocol version 1 for one user.

    `plan` says what happens to the next sends, one word each: ok, busy, rate_limited, forbidden, timeout, silent, cut_before (the
    connection ends and nothing is stored), cut_after (it is stored, the answer is lost). An empty plan means ok.
    """

    def __init__(self) -> None:
        self.plan: deque[str] = deque()
        self.refusals: deque[tuple[int, str]] = deque()
        """Status and Retry-After of the next upgrades."""
        self.sync_failures: deque[int] = deque()
        self.groups: dict[str, str] = {"7": "lobby"}
        self.stored: dict[str, list[Message]] = {"7": []}
        self.sends: list[dict[str, Any]] = []
        self.syncs: list[dict[str, int]] = []
        self.requests: list[dict[str, Any]] = []
        self.left_out: list[str | None] = []
        """The node that each question for a gateway named as the wrong one."""
        self.lists = 0
        self.upgrades = 0
        self.sockets: list[web.WebSocketResponse] = []
        self.epoch = "one"
        self.heartbeat_s = 30.0
        self.answer_pings = True
        self.resume_state: str | None = None
        self.resume_limit = 50
        self.first_frames: list[dict[str, Any]] = []
        """Sent before hello."""
        self.connected = asyncio.Event()
        application = web.Application()
        application.add_routes(
            [
                web.get("/ws", self._ws),
                web.get("/api/v1/gateway", self._where),
                web.get("/api/v1/groups", self._list),
                web.post("/api/v1/sync", self._sync),
            ]
        )
        self._server = TestServer(application)

    async def _where(self, request: web.Request) -> web.Response:
        self.left_out.append(request.query.get("not"))
        return web.json_response({"url": f"ws://{request.host}/ws", "node": "scripted"})

    async def __aenter__(self) -> "ScriptedServer":
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    def store(self, body: str, group_id: str = "7", sender_id: str = OTHER, client_msg_id: str = "") -> Message:
        """A stored message that nobody was told about."""
        log = self.stored[group_id]
        seq = len(log) + 1
        log.append(Message(str(1000 + seq), group_id, seq, sender_id, client_msg_id or f"id-{seq}", "text", body, 1))
        return log[-1]

    async def push(self, *items: Message) -> None:
        """A packet to every connection."""
        content = frames.messages(int(items[0].group_id), items[0].seq - 1, [msgspec.json.encode(i) for i in items])
        await self.emit(content)

    async def emit(self, frame: bytes | dict[str, Any]) -> None:
        """Any frame to every connection."""
        text = json.dumps(frame) if isinstance(frame, dict) else frame.decode()
        for ws in list(self.sockets):
            with suppress(ConnectionResetError):  # cut by the script, or left by the client
                await ws.send_str(text)

    async def close_all(self, code: int, reason: str = "") -> None:
        """End every connection politely."""
        for ws in list(self.sockets):
            await ws.close(code=code, message=reason.encode())

    async def cut_all(self) -> None:
        """End every connection without a word."""
        self.connected.clear()
        while self.sockets:
            _cut(self.sockets.pop())

    async def _list(self, request: web.Request) -> web.Response:
        self.lists += 1
        if request.headers.get("Authorization") != "Bearer good":
            return _error(401, "unauthorized", "no valid token")
        items = [
            {"id": group, "name": name, "last_seq": len(self.stored[group]), "unread": 0, "role": "member", "new": 1}
            for group, name in self.groups.items()
        ]
        return web.json_response({"items": items, "next": None})

    async def _sync(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.sync_failures:
            return _error(self.sync_failures.popleft(), "busy", "later")
        cursors = {group: cursor["seq"] for group, cursor in body["groups"].items()}
        self.syncs.append(cursors)
        answer = {}
        for group, seq in cursors.items():
            if group in self.groups:
                log = self.stored[group]
                items = log[seq : seq + body["limit"]]
                more = seq + len(items) < len(log)
                answer[group] = {"items": items, "last_seq": len(log), "has_more": more}
        return web.Response(body=msgspec.json.encode({"groups": answer}), content_type="application/json")

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        self.upgrades += 1
        if self.refusals:
            status, retry_after = self.refusals.popleft()
            return web.Response(status=status, headers={"Retry-After": retry_after} if retry_after else {})
        if request.headers.get("Authorization") != "Bearer good":
            return web.Response(status=401)
        ws = web.WebSocketResponse(protocols=(frames.SUBPROTOCOL,), compress=False)
        await ws.prepare(request)
        self.sockets.append(ws)
        for frame in self.first_frames:
            await ws.send_json(frame)
        hello = {"session": "s", "user_id": ME, "node": "n", "server_time": 1, "heartbeat_s": self.heartbeat_s}
        backoff = {"base_ms": 1, "max_ms": 5, "jitter": 1.0}
        await ws.send_json({"type": "hello", **hello, "backoff": backoff, "epoch": self.epoch, "later": {}})
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                with suppress(ConnectionResetError):
                    await self._on_frame(ws, json.loads(message.data))
        if ws in self.sockets:
            self.sockets.remove(ws)
        return ws

    async def _on_frame(self, ws: web.WebSocketResponse, frame: dict[str, Any]) -> None:
        self.requests.append(frame)
        match frame["type"]:
            case "message.send":
                self.sends.append(frame)
                await self._on_send(ws, frame)
            case "resume":
                found = {group: self._resumed(group, c["seq"]) for group, c in frame["groups"].items()}
                await ws.send_str(msgspec.json.encode({"id": frame["id"], "type": "ok", "groups": found}).decode())
                self.connected.set()
            case "ping" if not self.answer_pings:
                pass
            case _:
                await ws.send_json({"id": frame["id"], "type": "ok"})

    def _resumed(self, group: str, seq: int) -> dict[str, Any]:
        if group not in self.groups:
            return {"state": "reset", "last_seq": 0}
        log = self.stored[group]
        if self.resume_state == "reset":
            self.resume_state = None
            return {"state": "reset", "last_seq": len(log)}
        if seq == len(log):
            return {"state": "current", "last_seq": len(log)}
        if len(log) - seq > self.resume_limit:
            return {"state": "behind", "last_seq": len(log)}
        return {"state": "delta", "items": log[seq:], "last_seq": len(log)}

    async def _on_send(self, ws: web.WebSocketResponse, frame: dict[str, Any]) -> None:
        what = self.plan.popleft() if self.plan else "ok"
        number = frame["id"]
        if what in ("ok", "cut_after"):
            known = [m for m in self.stored[frame["group_id"]] if m.client_msg_id == frame["client_msg_id"]]
            stored = known[0] if known else self.store(frame["body"], frame["group_id"], ME, frame["client_msg_id"])
            if what == "ok":
                ack = {"message_id": stored.message_id, "seq": stored.seq, "ts": stored.ts}
                await ws.send_json({"id": number, "type": "ok", **ack})
                return
        if what.startswith("cut"):
            if ws in self.sockets:
                self.sockets.remove(ws)
            _cut(ws)
            return
        if what != "silent":
            outcome = "unknown" if what == "timeout" else "none"
            error = {"id": number, "type": "error", "code": what, "message": f"scripted {what}", "outcome": outcome}
            await ws.send_json(error | {"retry_after_ms": 1})


def _cut(ws: web.WebSocketResponse) -> None:
    transport = ws.get_extra_info("socket")
    writer = ws._writer
    if transport is not None and writer is not None:
        writer.transport.abort()


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response(
        {"error": {"code": code, "message": message, "details": None, "request_id": "r"}}, status=status
    )
