"""CPU time and memory of the processes that play each role on this machine."""

import os
from collections.abc import Iterable, Mapping

import msgspec
import psutil

PROGRAMS = {"postgres": "postgres", "valkey-server": "valkey", "redis-server": "valkey", "java": "kafka"}
"""Program → role of what is found among the children."""


MACHINE = "machine"
"""The role of everything that runs here."""


class Use(msgspec.Struct):
    """Of one role. `memory` is VmRSS; of PostgreSQL's many processes the PSS, which counts shared pages once."""

    cpu_s: float = 0.0
    memory: int = 0


def measure(roles: Mapping[int, str], workers: Iterable[int], *, thorough: bool) -> dict[str, Use]:
    """Role → use, at this moment: those of `roles` (process → role), postgres, valkey, kafka, generator, and the whole machine.

    The stores are looked for below this process and below those of `roles`; they are missing when they run elsewhere. Without
    `thorough` the memory of PostgreSQL is left 0: adding up its pages disturbs it.
    """
    generators = set(workers)
    found: dict[int, psutil.Process] = {}
    for root in {os.getpid(), *roles}:
        try:
            process = psutil.Process(root)
            for each in (process, *process.children(recursive=True)):
                found[each.pid] = each
        except psutil.NoSuchProcess:
            continue
    busy = psutil.cpu_times()
    use = {MACHINE: Use(sum(busy) - busy.idle - getattr(busy, "iowait", 0.0))}
    for pid, process in found.items():
        try:
            role = roles.get(pid) or ("generator" if pid in generators else PROGRAMS.get(process.name(), ""))
            if role:
                _add(use.setdefault(role, Use()), process, role, thorough)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return use


def _add(use: Use, process: psutil.Process, role: str, thorough: bool) -> None:
    times = process.cpu_times()
    use.cpu_s += times.user + times.system
    if role == "postgres":
        # Sessions that ended are in the times of the process that reaped them, their parent.
        use.cpu_s += times.children_user + times.children_system
        use.memory += process.memory_full_info().pss if thorough else 0
    else:
        use.memory += process.memory_info().rss
