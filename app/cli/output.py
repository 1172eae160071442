"""Where the answer of a command goes."""

import sys
from pathlib import Path

from rich.console import Console

from app.errors import ConfigError

PIPED_WIDTH = 200
"""Nobody's terminal has to hold it, and ids must not be cut."""


def answers() -> Console:
    """Stdout: as wide as the terminal, or wide enough for whole ids in a pipe."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def write(text: str, file: Path | None) -> None:
    """Into the file, or as it is to stdout. Raises ConfigError."""
    if file is None:
        sys.stdout.write(text)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"Cannot write {file}: {error.strerror}.") from None
