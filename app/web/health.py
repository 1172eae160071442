"""`/livez`, `/readyz`, `/metrics` for orchestrators and Prometheus, on a port of their own.

The public port shows metrics to this machine only.

Nothing here asks a store.
"""

import asyncio
import ipaddress

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.errors import NotFound
from app.lifecycle import Readiness
from app.metrics import Metrics


class Health:
    """Answers from memory: a probe must not depend on a store."""

    def __init__(self, readiness: Readiness, metrics: Metrics) -> None:
        self._readiness = readiness
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        """For the public port."""
        return [
            web.get("/livez", self._live),
            web.get("/readyz", self._ready),
            web.get("/metrics", self._metrics_for_this_machine),
        ]

    def private_app(self) -> web.Application:
        """For the port of `metrics.port`."""
        app = web.Application()
        app.add_routes(
            [web.get("/livez", self._live), web.get("/readyz", self._ready), web.get("/metrics", self._all_metrics)]
        )
        return app

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        reasons = self._readiness.reasons
        return web.json_response(
            {"status": "not ready" if reasons else "ok", "reasons": reasons}, status=503 if reasons else 200
        )

    async def _metrics_for_this_machine(self, request: web.Request) -> web.Response:
        # The socket's peer, not a header: a proxy on this machine must not forward this address.
        try:
            local = ipaddress.ip_address(request.remote or "").is_loopback
        except ValueError:
            local = False
        if not local or "X-Forwarded-For" in request.headers:
            raise NotFound("there is nothing at this address")
        return await self._all_metrics(request)

    async def _all_metrics(self, request: web.Request) -> web.Response:
        # In a thread: the process's own figures are files.
        text = await asyncio.to_thread(generate_latest, self._metrics.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
