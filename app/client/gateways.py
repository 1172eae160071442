"""Where to open the next WebSocket: at the gateway the server names, at another one after a failure."""

import asyncio

from yarl import URL

from app.client.api import Api
from app.client.errors import ClientError
from app.errors import AppError

ASK_S = 3
"""An answer that takes longer is not worth it: the last address may work meanwhile."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Gateways:
    """`first` is used once without asking; it is what the login named."""

    def __init__(self, api: Api, url: str, first: str | None) -> None:
        self._api = api
        self._server = URL(url)
        self._first = None if first is None else self._reachable(first)
        self._url = self._first or self._own()
        self._node = ""
        self._failed: str | None = None

    async def next_url(self) -> str:
        """The address to try now. While the API does not answer, the last one: the gateways may be there all the same."""
        if self._first is not None:
            self._first = None
            return self._url
        try:
            async with asyncio.timeout(ASK_S):
                named = await self._api.gateway(self._failed)
        except (AppError, ClientError, TimeoutError):
            return self._url
        self._url, self._node = self._reachable(named.url), named.node
        return self._url

    def worked(self, node: str) -> None:
        """`node` said hello."""
        self._node, self._failed = node, None

    def failed(self) -> None:
        """The address did not work, or its gateway sent us away: ask for another one."""
        self._failed = self._node or None

    def _reachable(self, named: str) -> str:
        """Ours where the server cannot know better: it names localhost to somebody elsewhere, or no TLS where a proxy has it."""
        url = URL(named)
        elsewhere = url.host in LOOPBACK and self._server.host not in LOOPBACK
        if not url.host or elsewhere or (self._server.scheme == "https" and url.scheme == "ws"):
            return self._own()
        return named

    def _own(self) -> str:
        return str(self._server.with_scheme("wss" if self._server.scheme == "https" else "ws") / "ws")
