"""The Autobahn cases against an echo handler on the gateway's own upgrade, limits and writer."""

import asyncio
import time
from uuid import uuid4

import aiohttp
import kosoku
import pytest
from aiohttp import web

from app.metrics import Metrics
from app.protocol import wsframe
from app.protocol.endpoint import Principal
from app.settings import Settings
from app.web.gateway.connection import Connection, Outlet
from app.web.gateway.upgrade import socket_for, transport_of

# 7.9.5 sends a close code that aiohttp takes; 6.4.1 to 6.4.4 want a failure in the middle of a message, which is optional.
ALLOWED = {
    "7.9.5": "FAILED",
    "6.4.1": "NON-STRICT",
    "6.4.2": "NON-STRICT",
    "6.4.3": "NON-STRICT",
    "6.4.4": "NON-STRICT",
}

FINE = ("OK", "INFORMATIONAL")


def echo_app(settings: Settings) -> web.Application:
    outlet, metrics, o = Outlet(), Metrics(), settings.gateway

    async def echo(request: web.Request) -> web.StreamResponse:
        ws = socket_for(request, max_frame_bytes=o.max_frame_bytes, close_timeout_s=o.close_timeout_s, subprotocol=None)
        await ws.prepare(request)
        principal = Principal(1, uuid4(), round(time.time()) + 60)
        connection = Connection(
            1, ws, transport_of(request), principal, outlet, metrics,
            buffer_bytes=o.buffer_bytes, held_max=o.held_frames_max, frames_per_second=20,
        )  # fmt: skip
        async for message in ws:
            match message.type:
                case aiohttp.WSMsgType.TEXT:
                    connection.send(message.data.encode())
                case aiohttp.WSMsgType.BINARY:
                    connection.push_event(wsframe.encode(0x82, message.data), droppable=False)
                case aiohttp.WSMsgType.PING:
                    connection.pong(message.data)
            # As the gateway's read loop does.
            await asyncio.sleep(0)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    return app


@pytest.mark.may_block
@pytest.mark.timeout(120)
async def test_autobahn_cases(config: Settings) -> None:
    runner = web.AppRunner(echo_app(config), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        results = await kosoku.run_fuzzingclient(
            f"ws://127.0.0.1:{port}/", cases=[f"{n}.*" for n in (1, 2, 3, 4, 5, 6, 7, 10)], concurrency=8
        )
    except kosoku.FailureError as failure:
        results = failure.results
    finally:
        async with asyncio.timeout(20):
            await runner.cleanup()
    assert len(results) > 200
    verdicts = {result.case_id: result.behavior.value for result in results}
    unexpected = {
        case: verdict for case, verdict in verdicts.items() if verdict not in FINE and ALLOWED.get(case) != verdict
    }
    assert unexpected == {}
