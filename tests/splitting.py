"""The application as its roles apart, in this process: an api, two gateways and a consumer that share stores and a broker.

`SETUP=redis_streams` or `SETUP=kafka` makes every test that serves an application do it this way; see `tests/running.py`. On Redis Streams
messages are routed to gateways, on Kafka broadcast.
"""

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiohttp import web

from app.roles import build_app
from app.settings import Role, Settings
from tests.contract.logs import kafka_options

SETUP = os.environ.get("SETUP", "one")
"""one | redis_streams | kafka"""
HOST = "127.0.0.1"


async def broker_settings() -> dict[str, dict[str, Any]]:
    """The sections that differ by broker: a log that no other test uses."""
    if SETUP == "kafka":
        return {"broker": {"kind": "kafka"}, "kafka": (await kafka_options()).model_dump()}
    return {"broker": {"kind": "redis_streams"}, "delivery": {"kind": "redis_pubsub", "group": "routed"}}


@asynccontextmanager
async def split(
    settings: Settings, on_death: Callable[[str], None]
) -> AsyncIterator[list[tuple[web.Application, str]]]:
    """(application, URL) of the api, then of the gateways, then of the consumer."""
    roles: list[Role] = ["api", "gateway", "gateway", "consumer"]
    async with AsyncExitStack() as stack:
        # Closed by the servers; by us when one does not start.
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in roles]
        urls = [f"http://{HOST}:{each.getsockname()[1]}" for each in sockets]
        names = [f"{role}{number}" for number, role in enumerate(roles)]
        gateways = [
            f"{name}={url.replace('http', 'ws', 1)}/ws"
            for name, url in zip(names, urls, strict=True)
            if "gateway" in name
        ]
        common = {
            "delivery": {"kind": "redis_pubsub"},
            **await broker_settings(),
            "http": {"public_url": settings.http.public_url or urls[0]},
        }
        served: list[tuple[web.Application, str]] = []
        # The consumer first: the others end before it does, as an operator would end them.
        for role, name, url, listener in reversed(list(zip(roles, names, urls, sockets, strict=True))):
            own = {**common, "gateway": {"node_id": name, "nodes": tuple(gateways)}}
            app = build_app(_changed(settings, own).model_copy(update={"role": role}), stop=on_death)
            runner = web.AppRunner(app, shutdown_timeout=2)
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.SockSite(runner, listener).start()
            served.insert(0, (app, url))
        yield served


def _changed(settings: Settings, sections: dict[str, dict[str, Any]]) -> Settings:
    changes = {
        name: type(getattr(settings, name)).model_validate(getattr(settings, name).model_dump() | options)
        for name, options in sections.items()
    }
    return settings.model_copy(update=changes)
