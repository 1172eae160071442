"""From an HTTP request to a WebSocket with our limits; shared with the conformance test's echo handler."""

import asyncio

from aiohttp import web

from app.errors import BadRequest, Busy
from app.protocol.frames import SUBPROTOCOL


def socket_for(
    request: web.Request, *, max_frame_bytes: int, close_timeout_s: float, subprotocol: str | None = SUBPROTOCOL
) -> web.WebSocketResponse:
    """What answers the upgrade with `prepare`. Raises BadRequest when it is none or does not offer `subprotocol` (None: any).

    No compression (it costs 100 KiB a connection and invites deflate bombs); pings are answered by the caller, because the
    connection has one writer.
    """
    ws = web.WebSocketResponse(
        protocols=(subprotocol,) if subprotocol else (),
        compress=False,
        # aiohttp refuses what reaches its limit; ours may be reached.
        max_msg_size=max_frame_bytes + 1,
        autoping=False,
        timeout=close_timeout_s,
    )
    if not ws.can_prepare(request):
        raise BadRequest("this address speaks WebSocket: send an upgrade request")
    offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if subprotocol and subprotocol not in offered:
        raise BadRequest(f"offer the WebSocket subprotocol {subprotocol}")
    return ws


def transport_of(request: web.Request) -> asyncio.Transport:
    """The socket under an upgraded request. Raises Busy when the client is gone already."""
    transport = request.transport
    if transport is None:
        raise Busy("the client disconnected during the upgrade")
    return transport
