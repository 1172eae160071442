"""The tables of `run.py cluster status`."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app import __version__

if TYPE_CHECKING:
    from app.cli.cluster_status import Gateway, Process, Status

UNKNOWN = "[dim]?[/dim]"


def show(status: "Status", console: Console) -> None:
    """Print it for people."""
    console.print(_registry(status), highlight=False)
    if status.gateways:
        console.print(_gateways(status))
    console.print(_processes(status))
    if status.partitions:
        console.print(_partitions(status))
    for note in status.notes:
        console.print(f"[yellow]•[/yellow] {escape(note)}", highlight=False)
    for wrong in status.wrong:
        console.print(f"[red]✗ {escape(wrong)}[/red]", highlight=False)
    if not status.wrong:
        console.print("[green]✓ Nothing is wrong.[/green]")


def _registry(status: "Status") -> str:
    if not status.registry:
        return (
            "registry: none, gateways are those of gateway.nodes, or the process itself. To have them register and see more here, set "
            "IM_CLUSTER__REGISTRY=redis or etcd on every process and here."
        )
    return f"registry: {status.registry}, {'[green]answers[/green]' if status.registry_answers else '[red]does not answer[/red]'}"


def _gateways(status: "Status") -> Table:
    table = Table(
        "gateway", "state", "version", "up for", "sockets", "weight", "share", "lease", "for clients", "for others"
    )
    table.title, table.title_justify, table.show_edge = "Gateways in the registry", "left", False
    for column in range(3, 8):
        table.columns[column].justify = "right"
    for gateway in status.gateways:
        table.add_row(
            escape(gateway.node_id),
            _state(gateway),
            _version(gateway.version),
            UNKNOWN if gateway.uptime_s is None else str(timedelta(seconds=int(gateway.uptime_s))),
            UNKNOWN if gateway.connections is None else f"{gateway.connections:,}",
            str(gateway.weight),
            f"{gateway.share:.1%}",
            UNKNOWN if gateway.lease_s is None else f"{gateway.lease_s:.1f} s",
            escape(gateway.ws_url),
            escape(gateway.grpc_address) or "none",
        )
    return table


def _state(gateway: "Gateway") -> str:
    if gateway.answers is False:
        return "[red]silent[/red]"
    if gateway.sees_registry is False:
        return "[red]lost[/red]"
    return "[green]up[/green]" if gateway.state == "up" else f"[yellow]{gateway.state}[/yellow]"


def _processes(status: "Status") -> Table:
    owned = Counter(each.owner for each in status.partitions)
    table = Table("process", "role", "version", "seen", "partitions")
    table.title, table.title_justify, table.show_edge = "Processes", "left", False
    for column in (3, 4):
        table.columns[column].justify = "right"
    for process in status.processes:
        table.add_row(
            escape(process.name),
            process.role,
            _version(process.version),
            _seen(process),
            str(owned[process.name] or ""),
        )
    if not status.processes:
        table.add_row("[red]none[/red]")
    return table


def _seen(process: "Process") -> str:
    text = f"{process.seen_s:.0f} s ago"
    return text if process.alive else f"[yellow]{text}[/yellow]"


def _partitions(status: "Status") -> Table:
    """Those of one owner in one line: there may be many."""
    table = Table("partitions", "owner", "waiting")
    table.title, table.title_justify, table.show_edge = f"The log ({status.broker})", "left", False
    table.columns[2].justify = "right"
    by_owner: dict[tuple[str, bool], list[int]] = {}
    for each in status.partitions:
        by_owner.setdefault((each.owner, each.owner_alive), []).append(each.partition)
    waiting = {each.partition: each.waiting for each in status.partitions}
    for (owner, alive), numbers in sorted(by_owner.items()):
        known = [waiting[number] for number in numbers]
        name = escape(owner) or "nobody"
        table.add_row(
            ", ".join(_ranges(numbers)),
            name if alive else f"[yellow]{name}{' (gone)' if owner else ''}[/yellow]",
            UNKNOWN if None in known else f"{sum(filter(None, known)):,}",
        )
    return table


def _ranges(numbers: list[int]) -> Iterator[str]:
    """As `0-3`, `5`."""
    first = last = numbers[0]
    for number in [*numbers[1:], -1]:
        if number == last + 1:
            last = number
            continue
        yield str(first) if first == last else f"{first}-{last}"
        first = last = number


def _version(version: str) -> str:
    return (version if version == __version__ else f"[yellow]{escape(version)}[/yellow]") if version else UNKNOWN
