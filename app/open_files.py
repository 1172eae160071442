"""How many files a process may have open: each connection is one, and what it inherits is often 1,024."""

import resource
from contextlib import suppress

import structlog

log = structlog.get_logger(__name__)

SPARE_FILES = 200
"""Open files a process needs beside its connections."""
INSTEAD_OF_INFINITE = 65536
"""macOS may say that there is no limit, and refuses to have that set."""


def raise_open_files() -> int:
    """Raise the limit of this process and its children as far as allowed; returns the limit there is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        wanted = max(soft, INSTEAD_OF_INFINITE) if hard == resource.RLIM_INFINITY else hard
        # With few files one can serve few.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def warn_of_few(limit: int, connections: int) -> None:
    """Say it if a gateway with this limit runs out of files before it has as many connections as it would take."""
    if limit < connections + SPARE_FILES:
        log.warning(
            "open_files_limited",
            limit=limit,
            needed=connections + SPARE_FILES,
            hint="raise the hard limit (LimitNOFILE in systemd, ulimits in Docker), or lower gateway.max_connections",
        )
