"""Headers that do not arrive in time cost the connection, and only that one."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from app.web.deadline import HeaderDeadline

DEADLINE_S = 0.3


async def hello(request: web.Request) -> web.Response:
    await asyncio.sleep(2 * DEADLINE_S if request.query else 0)
    return web.Response(text="hello")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    deadline = HeaderDeadline(DEADLINE_S)
    app = web.Application(middlewares=[deadline.middleware()])
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(deadline.guard(runner.server), "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    server.close()
    await runner.cleanup()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_connection_without_a_whole_request_is_closed(port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(10 * DEADLINE_S):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("path", ["/", "/?slow=1", "/nowhere"])
async def test_a_request_in_time_is_answered_however_long_that_takes(port: int, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404" if path == "/nowhere" else b"HTTP/1.1 200")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        await asyncio.sleep(1.5 * DEADLINE_S)  # idle between requests: the clock of the first one has stopped
    writer.close()
