"""`python -m bench [scenario]`: measure a server on this machine. Loopback only; see docs/performance.md."""

import asyncio
import dataclasses
import math
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from app import settings
from app.errors import ConfigError
from app.open_files import SPARE_FILES, raise_open_files
from bench.plan import Shape
from bench.results import RunResult, felt, machine, median, ratios
from bench.run import Options, run_once
from bench.scenarios import Scenario, shapes_of
from bench.seed import seed
from bench.server import BenchError, Target, own_cluster, own_server, own_stores
from bench.show import Screen, table
from local.cluster import BrokerKind, RegistryKind
from local.cluster import Shape as Nodes

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Where:
    """Which server: an existing one, or (without `url`) one of our own; with `cluster` its roles in processes of their own."""

    url: str
    dsn: str
    secret: str
    pid: int | None
    overrides: dict[str, str]
    cluster: Nodes | None = None


async def compare(
    name: str,
    shape: Shape,
    options: Options,
    runs: int,
    where: Where,
    versus: dict[str, str],
    folder: Path,
    console: Console,
) -> tuple[list[RunResult], list[RunResult]]:
    """Run with and without the settings `versus`, in turn, so that what else the machine does meets both; each on fresh stores."""
    changed = dataclasses.replace(where, overrides=where.overrides | versus)
    results: tuple[list[RunResult], list[RunResult]] = ([], [])
    for number in range(runs):
        turns = list(zip((where, changed), results, ("as it is", "changed"), strict=True))
        for way, found, title in turns if number % 2 else turns[::-1]:
            own = folder / f"{number}-{title.replace(' ', '-')}"
            own.mkdir()
            at = dataclasses.replace(options, seed=options.seed + number)
            found += await measure(f"{name} {number + 1}/{runs} {title}", shape, at, 1, way, own, console)
    return results


async def measure(
    name: str, shape: Shape, options: Options, runs: int, where: Where, folder: Path, console: Console
) -> list[RunResult]:
    """Run a scenario `runs` times, each on fresh users and groups, and on a fresh process of our own server."""
    results = []
    async with AsyncExitStack() as stack:
        stores = None
        for number in range(runs):
            title = f"{name} {number + 1}/{runs}" if runs > 1 else name
            with Screen(console, title) as screen:
                if not (where.url or where.cluster) and stores is None:
                    stores = await stack.enter_async_context(own_stores(folder / "stores", screen.step))
                async with AsyncExitStack() as server:
                    overrides = raised_limits(shape) | where.overrides
                    if where.cluster:
                        own = own_cluster(where.cluster, folder / f"cluster-{number}", overrides, screen.step)
                        target = await server.enter_async_context(own)
                    elif stores is None:
                        target = Target(where.url.rstrip("/"), where.dsn, where.secret, where.pid)
                    else:
                        target = await server.enter_async_context(own_server(stores, folder, overrides, screen.step))
                    screen.step("making users and groups")
                    members = await seed(target.dsn, target.secret, shape, options.seed + number)
                    run_folder = folder / title.replace(" ", "-").replace("/", "-of-")
                    run_folder.mkdir()
                    results.append(await run_once(target, members, shape, options, run_folder, screen))
    return results


def raised_limits(shape: Shape) -> dict[str, str]:
    """The limiter of our own server lets the load through; at up to its default rate it is left alone."""
    per_minute = math.ceil(shape.rate * 60)
    if per_minute <= settings.load().limits.send_per_minute:
        return {}
    return {"IM_LIMITS__SEND_PER_MINUTE": str(per_minute * 2)}


def _overrides(assignments: list[str]) -> dict[str, str]:
    found = {}
    for each in assignments:
        name, equals, value = each.partition("=")
        if not equals:
            raise BenchError(f"--set {each}: write section.key=value.")
        found["IM_" + name.upper().replace(".", "__")] = value
    return found


def _check_open_files(users: int, processes: int, console: Console) -> None:
    limit = raise_open_files()
    needed = users + SPARE_FILES
    if limit < needed:
        console.print(
            f"Only {limit} open files are allowed per process and the server needs {needed} for {users} connections;"
            " raise the hard limit (ulimit -Hn) or ask for fewer --users.",
            style="red",
        )
    elif limit < users / processes + SPARE_FILES:
        console.print(f"Only {limit} open files are allowed per process; use more --processes.", style="red")


@app.command()
def main(
    scenario: Annotated[Scenario, typer.Argument(help="quick: a small round of the others")] = Scenario.QUICK,
    users: Annotated[int | None, typer.Option(help="connections", min=1)] = None,
    group_size: Annotated[int | None, typer.Option(help="members of a group", min=1)] = None,
    groups_per_user: Annotated[int | None, typer.Option(min=1)] = None,
    senders: Annotated[int | None, typer.Option(help="how many of the users send", min=0)] = None,
    rate: Annotated[float | None, typer.Option(help="messages per second of each sender", min=0)] = None,
    duration: Annotated[float | None, typer.Option(help="seconds of load")] = None,
    warm_up: Annotated[
        float | None, typer.Option(help="seconds of the same load before it, shown apart and not counted", min=0)
    ] = None,
    body_chars: Annotated[int | None, typer.Option(help="length of a message")] = None,
    runs: Annotated[int, typer.Option(help="repeat and take the median", min=1, max=20)] = 1,
    processes: Annotated[int, typer.Option(help="generator processes", min=1, max=64)] = 1,
    check: Annotated[bool, typer.Option(help="record what every client sees and check it for anomalies")] = False,
    readers: Annotated[int, typer.Option(help="with --check: members per group and process that read it all")] = 10,
    connect_rate: Annotated[float, typer.Option(help="handshakes per second", min=1)] = 400,
    connect_timeout: Annotated[float, typer.Option(help="seconds for one handshake", min=1)] = 30,
    random_seed: Annotated[int, typer.Option("--seed", help="of groups and send times")] = 1,
    url: Annotated[str, typer.Option(help="a running server; needs --dsn and --secret. Empty: start one")] = "",
    dsn: Annotated[str, typer.Option(help="PostgreSQL of that server")] = "",
    secret: Annotated[str, typer.Option(help="its auth.secret")] = "",
    pid: Annotated[int | None, typer.Option(help="its process, for CPU and memory")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="setting of our own server: section.key=value")
    ] = None,
    broker: Annotated[
        BrokerKind | None,
        typer.Option("--cluster", help="roles in processes of their own, 1 api and some of the others, on this"),
    ] = None,
    gateways: Annotated[int, typer.Option(help="of --cluster", min=1)] = 2,
    consumers: Annotated[int, typer.Option(help="of --cluster", min=1)] = 2,
    registry: Annotated[
        RegistryKind,
        typer.Option(help="of --cluster: where gateways register; list: everybody is given a list of them"),
    ] = RegistryKind.list,
    versus: Annotated[
        list[str] | None,
        typer.Option(help="run with this setting, too, in turn with the others: section.key=value"),
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(help="sample the server under load with py-spy: .svg, .json (speedscope), .txt (raw)")
    ] = None,
    profile_role: Annotated[
        str, typer.Option(help="with --cluster: profile the first gateway, consumer or api")
    ] = "gateway",
    json_file: Annotated[Path | None, typer.Option("--json", help="write all figures there")] = None,
    keep: Annotated[Path | None, typer.Option(help="folder for histories and logs; default: temporary")] = None,
) -> None:
    """Measure Magpie: latency from the moment a message was due, CPU per message, memory, anomalies."""
    console = Console()
    given = {
        "users": users,
        "group_size": group_size,
        "groups_per_user": groups_per_user,
        "senders": senders,
        "rate": rate,
        "duration_s": duration,
        "warm_up_s": warm_up,
        "body_chars": body_chars,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options = Options(
        processes,
        connect_rate,
        connect_timeout,
        readers,
        check,
        random_seed,
        profile=profile,
        profile_role=profile_role,
    )
    cluster = None
    if broker:
        cluster = Nodes(broker.value, gateways=gateways, consumers=consumers, registry=registry.value)
    found: dict[Scenario, list[RunResult]] = {}
    report: dict[str, Any] = {"machine": machine(), "command": sys.argv[1:], "scenarios": {}}
    failed = False
    try:
        if url and not (dsn and secret):
            raise BenchError("A running server needs --dsn and --secret too: users and tokens are made with them.")
        if url and broker:
            raise BenchError("--cluster starts processes of our own: leave --url out.")
        if url and versus:
            raise BenchError("--versus compares servers of our own: leave --url out.")
        where = Where(url, dsn, secret, pid, _overrides(override or []), cluster)
        for name, base in shapes_of(scenario).items():
            shape = msgspec.structs.replace(base, **changes)
            _check_open_files(shape.users, processes, console)
            results, others = _measure(name, shape, options, runs, where, _overrides(versus or []), keep, console)
            console.print(table(f"{name}: {describe(shape)}", results))
            found[name] = results
            report["scenarios"][name] = {
                "shape": msgspec.to_builtins(shape),
                "runs": msgspec.to_builtins(results),
                "median": median(results),
            }
            if others:
                console.print(table(f"{name} with {', '.join(versus or [])}", others))
                console.print(f"as it is ÷ with {', '.join(versus or [])}: " + ratios(results, others))
                report["scenarios"][name] |= {"versus": msgspec.to_builtins(others), "versus_median": median(others)}
            failed |= any(result.anomalies and not result.anomalies.clean for result in results + others)
            for example in [e for r in results + others if r.anomalies for e in r.anomalies.examples]:
                console.print(example, style="red", markup=False)
        if scenario is Scenario.SLOW:
            console.print("with slow readers ÷ without: " + ratios(found[Scenario.SLOW], found[Scenario.FANOUT]))
            for complaint in felt(found[Scenario.SLOW], found[Scenario.FANOUT]):
                console.print(complaint, style="red", markup=False)
                failed = True
    except (BenchError, ConfigError, ValueError) as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(2)
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    sys.exit(1 if failed else 0)


def _measure(
    name: str,
    shape: Shape,
    options: Options,
    runs: int,
    where: Where,
    versus: dict[str, str],
    keep: Path | None,
    console: Console,
) -> tuple[list[RunResult], list[RunResult]]:
    with tempfile.TemporaryDirectory(prefix="magpie-bench-", ignore_cleanup_errors=True) as temporary:
        folder = keep / name if keep else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        # Embedded servers run as another user under root, and must be able to pass.
        folder.chmod(0o755)
        if versus:
            return asyncio.run(compare(name, shape, options, runs, where, versus, folder, console))
        return asyncio.run(measure(name, shape, options, runs, where, folder, console)), []


def describe(shape: Shape) -> str:
    """A shape in a line."""
    text = f"{shape.users:,} connections, {shape.groups_per_user} group(s) each of {shape.group_size}"
    if shape.senders and shape.rate:
        text += f", {shape.senders:,} senders at {shape.rate:g}/s"
    if shape.slow:
        text += f", {shape.slow:,} who read nothing"
    return f"{text}, {shape.duration_s:g} s after {shape.warm_up_s:g} s of warm-up"


if __name__ == "__main__":
    # These two measure answers and a page instead of messages: nothing of a shape applies.
    if sys.argv[1:2] == ["search"]:
        from bench.search import app as search_app

        search_app(sys.argv[2:])
    elif sys.argv[1:2] == ["web"]:
        from bench.web import app as web_app

        web_app(sys.argv[2:])
    else:
        app()
