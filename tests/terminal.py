"""A program in a terminal of its own, as a person would use it."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 20.0
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()=>78][0AB]?|\r|\x07")


class Terminal:
    """Types, and waits for what is shown. `text` is everything shown so far without colours and cursor movements."""

    def __init__(self, process: asyncio.subprocess.Process, controller: int) -> None:
        self.process = process
        self._controller = controller
        self._raw = b""
        self._mark = 0
        self._more = asyncio.Event()
        asyncio.get_running_loop().add_reader(controller, self._read)

    @property
    def text(self) -> str:
        return CONTROL.sub("", self._raw.decode(errors="replace"))

    async def see(self, wanted: str) -> str:
        """Wait until `wanted` is shown after what was seen last; returns what came before it."""
        try:
            async with asyncio.timeout(WAIT_S):
                while (at := self.text.find(wanted, self._mark)) < 0:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"{wanted!r} is not shown; the terminal says:\n{self.text[-2000:]}") from None
        before = self.text[self._mark : at]
        self._mark = at + len(wanted)
        return before

    def type(self, text: str) -> None:
        """Type, without Enter."""
        os.write(self._controller, text.encode())

    def enter(self, line: str) -> None:
        """Type a line."""
        self.type(line + "\r")

    async def left(self) -> int:
        """The exit code of the program."""
        async with asyncio.timeout(WAIT_S):
            return await self.process.wait()

    def _read(self) -> None:
        try:
            content = os.read(self._controller, 65536)
        except OSError:  # the program closed its terminal
            content = b""
        if content:
            self._raw += content
            # Asked where the cursor is; any row will do.
            os.write(self._controller, b"\x1b[1;1R" * content.count(b"\x1b[6n"))
        else:
            self.close()
        self._more.set()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._controller)


@asynccontextmanager
async def terminal(*arguments: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Terminal]:
    """`run.py` with these arguments in a terminal of 80 columns."""
    controller, terminal_end = pty.openpty()
    fcntl.ioctl(terminal_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        ROOT / "run.py",
        *arguments,
        stdin=terminal_end,
        stdout=terminal_end,
        stderr=terminal_end,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(environ or {})},
        start_new_session=True,
    )
    os.close(terminal_end)
    shown = Terminal(process, controller)
    try:
        yield shown
    finally:
        shown.close()
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(controller)
