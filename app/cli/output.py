"""Where the answer of a command goes."""

import sys

from rich.console import Console

PIPED_WIDTH = 200
"""Nobody's terminal has to hold it, and ids must not be cut."""


def answers() -> Console:
    """Stdout: as wide as the terminal, or wide enough for whole ids in a pipe."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
