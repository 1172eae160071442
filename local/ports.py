"""Ports for processes on this machine."""

import random
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress

HOST = "127.0.0.1"
TRIES = 100
LASTING = range(20_000, 32_768)
"""Below those that Linux and macOS give to outgoing connections: one of these could be given away before it is listened to."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now. Raises OSError when there are none to be found."""
    for _ in range(TRIES):
        with suppress(OSError):  # one of them is in use
            return _bound(random.SystemRandom().sample(LASTING, count))
    raise OSError(f"no {count} ports are free between {LASTING.start} and {LASTING.stop}")


def free_range(count: int) -> int:
    """The first of `count` ports in a row that nobody uses now. Raises OSError when there are none to be found."""
    for _ in range(TRIES):
        with suppress(OSError):  # one of them is in use
            return _bound(range(first := free_ports(1)[0], first + count))[0]
    raise OSError(f"no {count} ports in a row are free")


def _bound(ports: Sequence[int]) -> list[int]:
    """Bind all at once, so that no two are the same; raises OSError when one is in use."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in ports]
        for one, port in zip(sockets, ports, strict=True):
            one.bind((HOST, port))
        return [one.getsockname()[1] for one in sockets]
