"""The OpenAPI document is valid, complete and true."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from openapi_spec_validator import validate

from app.roles import PARTS
from app.web.server import PREFIX
from tests.running import Server, serving, settings_for


@pytest.fixture
async def server(dsn: str, redis_url: str) -> AsyncIterator[Server]:
    async with serving(settings_for(dsn, redis_url)) as server:
        yield server


async def test_the_document_is_valid_and_names_every_route(server: Server) -> None:
    async with server.http.get(f"{server.url}/api/openapi.json") as response:
        document: dict[str, Any] = await response.json()
    validate(document)
    described = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    served = {
        (route.method, route.resource.canonical)
        for route in server.app.router.routes()
        if route.resource is not None and route.resource.canonical.startswith(PREFIX) and route.method != "HEAD"
    }
    assert described == served
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))


async def test_the_page_shows_every_operation(server: Server) -> None:
    async with server.http.get(f"{server.url}/api/docs") as response:
        page = await response.text()
    for path, operations in server.app[PARTS].document["paths"].items():
        assert f"<code>{path}</code>" in page
        for operation in operations.values():
            assert f'id="{operation["operationId"]}"' in page
    assert "`" not in page and "&lt;code" not in page
    assert "<script" not in page
    assert " style=" not in page
