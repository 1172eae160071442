"""Ports for processes on this machine."""

import fcntl
import functools
import itertools
import os
import random
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

HOST = "127.0.0.1"
LASTING = range(20_000, 32_768)
"""Below those that Linux and macOS give to outgoing connections: one of these could be given away before it is listened to."""
BLOCK = 512
"""Ports that only one process takes from: another could take one before it is listened to, or while its server is started again.
A whole test run takes some thousand one after the other; two dozen processes can do so at once."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now. Raises OSError when there are none to be found."""
    for _ in range(BLOCK):
        with suppress(OSError):  # one of them is in use
            return _bound(list(itertools.islice(_own_ports()[0], count)))
    raise OSError(f"no {count} ports are free between {LASTING.start} and {LASTING.stop}")


def free_range(count: int) -> int:
    """The first of `count` ports in a row that nobody uses now. Raises OSError when there are none to be found."""
    for _ in range(BLOCK):
        ports = list(itertools.islice(_own_ports()[0], count))
        if ports[-1] - ports[0] == count - 1:
            with suppress(OSError):  # one of them is in use
                return _bound(ports)[0]
    raise OSError(f"no {count} ports in a row are free")


@functools.cache
def _own_ports() -> tuple[Iterator[int], int]:
    """A block that no other process of this user takes from, round and round, and the open file that says so until this process ends."""
    folder = Path(tempfile.gettempdir()) / f"magpie-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    blocks = LASTING[: -BLOCK + 1 : BLOCK]
    # By chance, as other users look into another folder.
    for first in random.SystemRandom().sample(blocks, len(blocks)):
        lock = os.open(folder / f"{first}.lock", os.O_CREAT | os.O_WRONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return itertools.cycle(range(first, first + BLOCK)), lock
    raise OSError(f"too many processes take ports of this machine; they hold the files of {folder}")


def _bound(ports: Sequence[int]) -> list[int]:
    """Bind all at once, so that no two are the same; raises OSError when one is in use."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in ports]
        for one, port in zip(sockets, ports, strict=True):
            one.bind((HOST, port))
        return [one.getsockname()[1] for one in sockets]
