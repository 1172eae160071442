"""What a person sees while the process starts: one line per step on stderr; logs keep stdout for themselves."""

import time
from types import TracebackType
from typing import Self

import structlog
from rich.console import Console
from rich.markup import escape
from rich.status import Status

log = structlog.get_logger(__name__)


class Progress:
    """Lines for people. A text that ends with … is under way: on a terminal a spinner until the next one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_status()

    def step(self, text: str) -> None:
        """Show `text` as the latest step."""
        self._end_status()
        if text.endswith("…") and self._console.is_terminal:
            self._status = self._console.status(escape(text))
            self._status.start()
        else:
            mark = "…" if text.endswith("…") else "[green]✓[/green]"
            self._console.print(f"{mark} {escape(text)}", highlight=False, soft_wrap=True)

    def ready(self, address: str, hints: dict[str, str]) -> None:
        """The last lines: that it is ready, where, and label → text what to do now."""
        self._end_status()
        self._console.print(f"[green]✓[/green] Ready in {time.monotonic() - self._since:.1f} s", highlight=False)
        for label, text in {"open": address, **hints}.items():
            self._console.print(f"  [bold]{escape(label):<10}[/bold] {escape(text)}", highlight=False, soft_wrap=True)

    def _end_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


class LoggedProgress(Progress):
    """The same as log events, where nobody watches."""

    def step(self, text: str) -> None:
        """Log `text`."""
        log.info("startup_step", step=text)

    def ready(self, address: str, hints: dict[str, str]) -> None:
        """Log that it is ready, and where."""
        log.info("ready_to_serve", address=address, seconds=round(time.monotonic() - self._since, 1))
