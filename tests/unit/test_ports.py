"""Ports for servers that listen to them later."""

import socket
import subprocess
import sys

from local.ports import BLOCK, HOST, free_ports, free_range

TAKE = "from local.ports import free_ports; print(*free_ports(50), flush=True); input()"


def test_no_port_is_given_to_two_processes_before_it_is_listened_to() -> None:
    taken = free_ports(50)
    others = [
        subprocess.Popen([sys.executable, "-c", TAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for other in others:
        assert other.stdout is not None
        taken += map(int, other.stdout.readline().split())
    for other in others:
        other.communicate("\n")
    assert len(set(taken)) == 200


def test_ports_in_use_are_passed_over() -> None:
    first = free_range(3)
    with socket.socket() as listener:
        listener.bind((HOST, first + 4))
        listener.listen()
        following = free_range(3)
        assert first + 4 not in range(following, following + 3)
        # Once round.
        assert first + 4 not in [free_ports(1)[0] for _ in range(BLOCK)]
