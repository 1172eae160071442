"""A deadline for the first request of a connection: sockets that trickle headers, or say nothing, must not collect."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web


class HeaderDeadline:
    """Closes a connection whose first request has not arrived within `timeout_s` of its opening.

    Later requests on the same connection fall under aiohttp's keep-alive timeout. Costs one timer per connection.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._waiting: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}

    def guard(self, server: web.Server) -> Callable[[], web.RequestHandler]:
        """What makes the protocol of each new connection of `server`, with a clock on it."""
        loop = asyncio.get_running_loop()

        def connect() -> web.RequestHandler:
            protocol = server()
            self._waiting[protocol] = loop.call_later(self._timeout_s, self._expire, protocol)
            return protocol

        return connect

    def _expire(self, protocol: web.RequestHandler) -> None:
        self._waiting.pop(protocol, None)
        protocol.force_close()

    def middleware(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        """Stops the clock; to be the outermost of the application."""

        @web.middleware
        async def arrived(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            if timer := self._waiting.pop(request.protocol, None):
                timer.cancel()
            return await handler(request)

        return arrived
