"""A member's WebSocket. picows, because a thousand of them come back at once and the server shares the processors with them."""

import asyncio
import ssl
from collections.abc import Mapping

from picows import WSError, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport, ws_connect

from app.protocol.frames import SUBPROTOCOL

OPENED_S = 20.0
BUFFER_BYTES = 4096


class Refused(Exception):
    """The handshake was answered with another status than 101."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


class Socket(WSListener):
    """Text frames in both directions. Use `Socket.open`, and `close` it."""

    def __init__(self) -> None:
        self.close_code: int | None = None
        """What the server closed with."""
        self._transport: WSTransport | None = None
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()

    @classmethod
    async def open(cls, url: str, headers: Mapping[str, str], trust: ssl.SSLContext | None) -> "Socket":
        """Raises Refused, OSError or TimeoutError."""
        try:
            _, socket = await ws_connect(
                cls,
                url.replace("http", "ws", 1),
                ssl_context=trust,
                websocket_handshake_timeout=OPENED_S,
                extra_headers={**headers, "Sec-WebSocket-Protocol": SUBPROTOCOL},
                max_frame_size=1 << 24,
                read_buffer_init_size=BUFFER_BYTES,
                # aiofastnet 1.2, which picows would take: who is cancelled as TLS is agreed on closes the socket at once and stops reading
                # it 30 s later, by its number, which another connection has by then.
                use_aiofastnet=False,
            )
        except WSHandshakeError as error:
            raise Refused(int(error.response.status) if error.response else 0) from None
        except WSError as error:
            raise ConnectionError(str(error)) from error
        if not isinstance(socket, cls):
            # picows has no listener yet, and no exception either, when the connection is lost in the midst of the handshake.
            raise ConnectionError("lost during the handshake")
        return socket

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The upgrade is through."""
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame of the server."""
        if frame.msg_type == WSMsgType.TEXT:
            self._frames.put_nowait(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            payload = frame.get_payload_as_bytes()
            self.close_code = int.from_bytes(payload[:2], "big") if len(payload) > 1 else None
            transport.send_close()
            transport.disconnect()

    def on_ws_disconnected(self, _: WSTransport) -> None:
        """It is gone."""
        self._transport = None
        # No frame is empty: this is the end.
        self._frames.put_nowait(b"")

    async def receive(self) -> bytes:
        """The next frame; nothing when there comes none any more."""
        return await self._frames.get()

    def send(self, text: str) -> None:
        """Raises ConnectionError when it is gone."""
        if self._transport is None:
            raise ConnectionError("the socket is closed")
        self._transport.send(WSMsgType.TEXT, text.encode())

    def describe(self) -> str:
        """Its two ends, and whether frames wait to be read."""
        transport = self._transport.underlying_transport if self._transport else None
        ends = [transport.get_extra_info(name) for name in ("sockname", "peername")] if transport else []
        return f"{ends}, {self._frames.qsize()} frames"

    def close(self) -> None:
        """Go, without a word: its loop may end next."""
        if self._transport is not None:
            self._transport.underlying_transport.abort()
