"""A real Nginx for tests: in front of a whole cluster, or of stand-ins that do what a test needs."""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from app.client.api import Api
from local.cluster import Cluster, Shape, cluster
from local.nginx import Nginx, find_nginx
from tests.faults.process import LIMITS
from tests.running import PASSWORD
from tests.services import OPTIONS, server_folder

HEADER_TIMEOUT_S = 2
LOGINS_PER_MINUTE = 10
ENVIRONMENT = {
    "IM_ENV": "test",
    **LIMITS,
    "IM_LIMITS__LOGIN_PER_MINUTE": str(LOGINS_PER_MINUTE),
    "IM_HTTP__HEADER_TIMEOUT_S": str(HEADER_TIMEOUT_S),
    "IM_HTTP__WEB_FOLDER": "frontend/dist",
}


def need_nginx() -> None:
    """Skips without one, fails in CI."""
    if find_nginx() is None:
        reason = "no Nginx: scripts/nginx says how to install one"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


@asynccontextmanager
async def proxied_cluster() -> AsyncIterator[Cluster]:
    """Two apis, two gateways and a consumer behind Nginx, all running."""
    need_nginx()
    shape = Shape("redis_streams", apis=2, gateways=2, consumers=1, nginx=True)
    with server_folder() as folder:
        async with cluster(folder, shape, OPTIONS, environment=ENVIRONMENT, durable=False) as made:
            await made.start()
            yield made


def nginx_of(running: Cluster) -> Nginx:
    assert running.nginx is not None
    return running.nginx


def trusting(nginx: Nginx) -> ssl.SSLContext:
    """What a client of it needs: its certificate is its own."""
    return ssl.create_default_context(cafile=nginx.certificate)


@asynccontextmanager
async def http_to(nginx: Nginx, address: str = "127.0.0.1") -> AsyncIterator[aiohttp.ClientSession]:
    """Requests from one of this machine's addresses; relative URLs go to the proxy."""
    connector = aiohttp.TCPConnector(ssl=trusting(nginx), local_addr=(address, 0))
    async with aiohttp.ClientSession(nginx.url, connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield http


async def registered(http: aiohttp.ClientSession, nginx: Nginx, name: str) -> Api:
    """A new user's API; `token` is set."""
    api = Api(http, nginx.url)
    await api.register(name, PASSWORD)
    return api


def logs_of(nginx: Nginx) -> str:
    """Everything it wrote."""
    return "".join(file.read_text(errors="replace") for file in sorted(Path(nginx.folder).glob("*.log")))
