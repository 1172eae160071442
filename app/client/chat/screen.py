"""The terminal: lines scroll above, the line being typed stays below and is never torn, a status line at the bottom."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style
from rich.console import Console, RenderableType

MAX_WAITING = 500
"""Lines not yet on the screen; a writer that has more waits, so a storm of messages is bounded by the terminal."""
STATUS_REFRESH_S = 1
"""Countdowns and "is typing" change without any event."""

STYLE = Style.from_dict(
    {
        "bottom-toolbar": "noreverse bg:default fg:ansibrightblack",
        "good": "fg:ansigreen",
        "warn": "fg:ansiyellow",
        "bad": "fg:ansired",
        "room": "bold",
        "note": "fg:ansiyellow",
    }
)


class Screen:
    """Shows lines and reads what is typed. `status` and `prompt` are asked whenever the bottom is drawn."""

    def __init__(
        self,
        console: Console,
        *,
        prompt: Callable[[], StyleAndTextTuples],
        status: Callable[[], StyleAndTextTuples],
        complete: Callable[[str], Iterable[str]],
        on_typing: Callable[[str], None],
    ) -> None:
        self._console = console
        self._waiting: list[RenderableType] = []
        self._wake_up = asyncio.Event()
        self._room = asyncio.Event()
        self._on_typing = on_typing
        self._session: PromptSession[str] = PromptSession(
            prompt,
            bottom_toolbar=status,
            style=STYLE,
            history=InMemoryHistory(),
            completer=_Completer(complete),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            reserve_space_for_menu=0,
            key_bindings=_keys(),
            refresh_interval=STATUS_REFRESH_S,
            erase_when_done=True,
        )
        self._session.default_buffer.on_text_changed += self._changed

    async def read(self) -> str:
        """The next line. Raises EOFError at Ctrl+D, or at Ctrl+C on an empty line."""
        # Signals stay with the process; Ctrl+C is a key here.
        return await self._session.prompt_async(handle_sigint=False)

    async def show(self, *lines: RenderableType) -> None:
        """Show lines above the input."""
        while len(self._waiting) > MAX_WAITING:
            self._room.clear()
            await self._room.wait()
        self._waiting += lines
        self._wake_up.set()

    async def run(self) -> None:
        """Bring what waits to the terminal until cancelled; everything waiting goes at once, so a storm does not flicker."""
        while True:
            await self._wake_up.wait()
            self._wake_up.clear()
            self.flush()

    def flush(self) -> None:
        """Bring what waits to the terminal now.

        Not by `run_in_terminal`: that gives the keyboard back to the terminal meanwhile, where a Ctrl+C kills and a Ctrl+D is lost.
        """
        lines, self._waiting = self._waiting, []
        self._room.set()
        if not lines:
            return
        app = self._session.app
        if app.is_running:
            app.renderer.erase()
        for line in lines:
            self._console.print(line)
        if app.is_running:
            app.renderer.reset()
            app.renderer.request_absolute_cursor_position()
            app.invalidate()

    def keyboard(self) -> AbstractContextManager[None]:
        """While it is open, keys typed between two lines wait for the next one instead of showing up anywhere."""
        return self._session.app.input.raw_mode()

    def refresh(self) -> None:
        """Draw the bottom again soon."""
        self._session.app.invalidate()

    def _changed(self, buffer: Buffer) -> None:
        self._on_typing(buffer.text)


class _Completer(Completer):
    """Completes what the chat offers for the line so far, with the tab key."""

    def __init__(self, complete: Callable[[str], Iterable[str]]) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        line = document.text_before_cursor
        for candidate in self._complete(line):
            yield Completion(candidate, start_position=-len(line))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-c")
    def clear_or_leave(event: KeyPressEvent) -> None:
        """The first one clears the line, on an empty line it leaves."""
        buffer = event.app.current_buffer
        if buffer.text:
            buffer.reset()
        else:
            event.app.exit(exception=EOFError)

    return keys
