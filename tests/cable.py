"""A network that can be cut: what connects here reaches the server, until it does not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Cable:
    """Between somebody and a server. Cut, it neither breaks connections nor carries anything: as a lost radio link does."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._left: int | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """From now on nothing goes through."""
        self._whole.clear()

    def cut_after(self, chunks: int) -> None:
        """So many more pieces of what is said to the server go through, then nothing."""
        self._left = chunks
        if not chunks:
            self.cut()

    def mend(self) -> None:
        """Go on; what waited is carried."""
        self._left = None
        self._whole.set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody plugs in."""
        waiting = asyncio.create_task(self._whole.wait(), name="cable")
        self._tasks.add(waiting)
        # Not awaited itself: the streams of Python 3.11 complain of a callback that is cancelled.
        await asyncio.wait({waiting})
        self._tasks.discard(waiting)
        if waiting.cancelled():
            writer.close()
            return
        try:
            from_server, to_server = await self._dial()
        except OSError:
            writer.close()
            return
        for source, sink in ((reader, to_server), (from_server, writer)):
            task = asyncio.create_task(self._carry(source, sink, counted=sink is to_server))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counted: bool) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            while data := await source.read(65536):
                await self._whole.wait()
                sink.write(data)
                await sink.drain()
                if counted and self._left is not None:
                    self.cut_after(self._left - 1)
        sink.close()

    def end(self) -> None:
        """Unplug everything."""
        for task in list(self._tasks):
            task.cancel()


@asynccontextmanager
async def cable_to(server: int | str) -> AsyncIterator[Cable]:
    """A cable to the server on this port, or at the path of its Unix socket."""
    cable = Cable(
        partial(asyncio.open_unix_connection, server)
        if isinstance(server, str)
        else partial(asyncio.open_connection, "127.0.0.1", server)
    )
    listener = await asyncio.start_server(cable.connected, "127.0.0.1", 0)
    cable.port = listener.sockets[0].getsockname()[1]
    try:
        yield cable
    finally:
        listener.close()
        cable.end()
