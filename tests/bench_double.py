"""A server in one file that speaks just enough of the protocol to try the load generator on. Faults are asked for by attributes."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web

from app.protocol.frames import SUBPROTOCOL


class Double:
    """Stores in memory, acks, pushes to all members of a group."""

    def __init__(self, groups: dict[int, list[int]]) -> None:
        self.groups = groups
        self.history: dict[int, list[dict[str, Any]]] = {group: [] for group in groups}
        self.sockets: dict[int, web.WebSocketResponse] = {}
        self.pings = 0
        self.url = ""
        self.heartbeat_s = 25.0
        self.refuse_handshakes = 0
        self.stall_s = 0.0
        """Answer nothing for this long after the tenth message."""
        self.forget_seq = 0
        """Ack this seq of every group and do not store it."""
        self.announce_seq = 0
        """Send `gap` instead of this seq of every group."""
        self.close_at_seq = 0
        """Close the sender's connection at this seq."""
        self.stored = 0

    async def ws(self, request: web.Request) -> web.StreamResponse:
        if self.refuse_handshakes > 0:
            self.refuse_handshakes -= 1
            return web.Response(status=503, headers={"Retry-After": "0.1"})
        user = int(request.headers["Authorization"].removeprefix("Bearer "))
        socket = web.WebSocketResponse(protocols=[SUBPROTOCOL], compress=False)
        await socket.prepare(request)
        assert socket.ws_protocol == SUBPROTOCOL
        self.sockets[user] = socket
        await socket.send_json({"type": "hello", "user_id": str(user), "heartbeat_s": self.heartbeat_s})
        await socket.send_json({"type": "presence", "user_id": "1", "state": "unheard of"})
        async for frame in socket:
            if frame.type is WSMsgType.TEXT:
                await self.on_frame(user, socket, json.loads(frame.data))
        self.sockets.pop(user, None)
        return socket

    async def on_frame(self, user: int, socket: web.WebSocketResponse, frame: dict[str, Any]) -> None:
        if frame["type"] == "ping":
            self.pings += 1
            await socket.send_json({"type": "ok", "id": frame["id"]})
            return
        assert frame["type"] == "message.send"
        group = int(frame["group_id"])
        log = self.history[group]
        seq = len(log) + 1
        message = {
            "message_id": f"{group}{seq:06}",
            "group_id": str(group),
            "seq": seq,
            "sender_id": str(user),
            "client_msg_id": frame["client_msg_id"],
            "kind": frame["kind"],
            "body": frame["body"],
            "ts": 1,
        }
        log.append(message)
        self.stored += 1
        if self.stored == 10:
            time.sleep(self.stall_s)  # noqa: ASYNC251 - the whole server stands still
        if seq == self.close_at_seq:
            await socket.close(code=4001)
            return
        ack = {"type": "ok", "id": frame["id"], "message_id": message["message_id"], "seq": seq, "ts": 1}
        await socket.send_json(ack)
        push: dict[str, Any] = {"type": "messages", "group_id": str(group), "prev_seq": seq - 1, "items": [message]}
        if seq == self.announce_seq:
            push = {"type": "gap", "group_id": str(group), "from_seq": seq, "pull_within_ms": 50}
        if seq == self.forget_seq:
            return
        for member in self.groups[group]:
            if member in self.sockets and not self.sockets[member].closed:
                await self.sockets[member].send_str(json.dumps(push, separators=(",", ":")))

    async def sync(self, request: web.Request) -> web.Response:
        body = await request.json()
        groups = {}
        for group, cursor in body["groups"].items():
            log = [m for m in self.history[int(group)] if m["seq"] != self.forget_seq]
            items = [m for m in log if m["seq"] > cursor["seq"]]
            page = items[:3]
            last = self.history[int(group)][-1]["seq"] if self.history[int(group)] else 0
            groups[group] = {"items": page, "last_seq": last, "has_more": len(items) > len(page)}
        return web.json_response({"groups": groups})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Double"]:
        app = web.Application()
        app.router.add_get("/ws", self.ws)
        app.router.add_post("/api/v1/sync", self.sync)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            async with asyncio.timeout(10):
                await runner.cleanup()
