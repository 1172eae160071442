"""`python -m bench web`: the web app in a real Chromium, before a server of our own: its weight, its first view, its scrolling."""

import asyncio
import math
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import msgspec
import typer
from aiohttp import ClientSession
from rich.console import Console
from rich.table import Table

from app.settings import ROOT
from bench.corpus import Corpus
from bench.page import Scroll, View, chromium, log_in, look, scroll, scroll_plain
from bench.plan import Shape
from bench.results import machine
from bench.seed import Written, end_histories, message_id, seed, write_messages
from bench.server import BenchError, own_server, own_stores

FIRST_CHAT_MS = 1500
SCRIPT_KB = 120
PROMISES = f"first chat within {FIRST_CHAT_MS} ms, script below {SCRIPT_KB} kB, no jump while scrolling"
DAYS = 30
"""The length of each history."""
GROUP_SIZE = 10
EACH_IN = 5
"""Groups of everybody but the reader."""
SHORT = 200
"""Messages of each group but the long one."""
IN_A_ROW = 3
"""Messages of one person, at most, before somebody else writes."""
app = typer.Typer(add_completion=False)


class Plan(msgspec.Struct, frozen=True):
    """How much of everything."""

    groups: int
    messages: int
    views: int
    scrolls: int
    speed: int
    slowdown: float
    seed: int


class Report(msgspec.Struct):
    """What came out."""

    machine: dict[str, Any]
    command: list[str]
    browser: str
    plan: Plan
    views: list[View]
    scrolls: list[Scroll]
    plain: Scroll
    """The same rows in an ordinary page: what this machine and browser can do at all."""
    median: dict[str, float]


async def fill(dsn: str, me: int, members_of: dict[int, list[int]], plan: Plan) -> None:
    """Make `me` a member of all groups and give them histories: a long one to the first, which is the most recent too."""
    chance, corpus = random.Random(plan.seed), Corpus(plan.seed)
    now = time.time_ns() // 1_000_000
    rows: list[Written] = []
    for place, (group, people) in enumerate(members_of.items()):
        count = SHORT if place else plan.messages
        sender, left = people[0], 0
        for seq in range(1, count + 1):
            if left == 0:
                sender, left = chance.choice(people), chance.randint(1, IN_A_ROW)
            left -= 1
            ts = now - place * 60_000 - (count - seq) * DAYS * 86_400_000 // count
            rows.append((group, seq, message_id(ts, len(rows)), sender, corpus.message(), ts))
    connection = await asyncpg.connect(dsn)
    try:
        await write_messages(connection, rows)
        await end_histories(connection, {group: seq for group, seq, *_ in rows})
        await connection.execute(
            "INSERT INTO group_members (group_id, user_id, role, joined_seq, last_read_seq)"
            " SELECT group_id, $1, 'member', 0, last_seq FROM group_seq WHERE group_id = ANY($2)",
            me,
            list(members_of),
        )
        await connection.execute("ANALYZE group_members")
    finally:
        await connection.close()


async def measure(plan: Plan, folder: Path, console: Console) -> Report:
    """Fill, look, scroll."""
    if not (ROOT / "frontend" / "dist" / "index.html").exists():
        raise BenchError("The web app is not built: make web")
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(own_stores(folder / "stores", console.print))
        # The page reads 100 messages a call; at the default of 100 calls a minute it would wait, as it is told to.
        limits = {"IM_LIMITS__API_PER_MINUTE": "100000"}
        target = await stack.enter_async_context(own_server(stores, folder, limits, console.print))
        shape = Shape(GROUP_SIZE * math.ceil(plan.groups / EACH_IN), GROUP_SIZE, EACH_IN, 0, 0, 1)
        members_of: dict[int, list[int]] = {}
        for member in await seed(target.dsn, target.secret, shape, plan.seed):
            for group in member.groups:
                members_of.setdefault(group, []).append(member.user_id)
        members_of = dict(list(members_of.items())[: plan.groups])
        username, password = "bench_reader", secrets.token_hex(8)
        http = await stack.enter_async_context(ClientSession())
        account = {"username": username, "password": password}
        async with http.post(f"{target.api_url}/auth/register", json=account) as answer:
            if answer.status != 201:
                raise BenchError(f"Registering answered {answer.status}: {await answer.text()}")
            me = int((await answer.json())["user"]["id"])
        with console.status("writing messages"):
            await fill(target.dsn, me, members_of, plan)
        browser = await stack.enter_async_context(chromium())
        state = await log_in(browser, target.url, username, password)
        address = f"{target.url}/#/g/{next(iter(members_of))}"
        views, scrolls = [], []
        # The first one starts the browser's processes and warms the server: nobody's first view.
        await look(browser, state, address, plan.slowdown)
        for number in range(plan.views):
            with console.status(f"first view {number + 1}/{plan.views}"):
                views.append(await look(browser, state, address, plan.slowdown))
        for number in range(plan.scrolls):
            with console.status(f"scrolling {number + 1}/{plan.scrolls}"):
                scrolls.append(await scroll(browser, state, address, plan.speed, plan.slowdown))
        with console.status("scrolling an ordinary page"):
            plain = await scroll_plain(browser, state, address, plan.speed, plan.slowdown)
        middle = medians(views) | medians(scrolls)
        return Report(machine(), sys.argv[1:], browser.version, plan, views, scrolls, plain, middle)


def medians(runs: Sequence[msgspec.Struct]) -> dict[str, float]:
    """Of each figure."""
    found = [msgspec.to_builtins(run) for run in runs]
    return {name: statistics.median(run[name] for run in found) for name in found[0]}


def broken(report: Report) -> list[str]:
    """Promises that were not kept, as sentences."""
    found = []
    if report.median["first_chat_ms"] >= FIRST_CHAT_MS:
        found.append(f"The first chat took {report.median['first_chat_ms']:,.0f} ms, not less than {FIRST_CHAT_MS}.")
    if report.median["script_kb"] >= SCRIPT_KB:
        found.append(f"The script weighs {report.median['script_kb']:.0f} kB, not less than {SCRIPT_KB}.")
    if jumps := sum(run.jumps for run in report.scrolls):
        found.append(f"What was in sight jumped {jumps} times while scrolling.")
    return found


def show(title: str, runs: Sequence[msgspec.Struct], plain: Scroll | None = None) -> Table:
    """A row for each figure, with an ordinary page for comparison."""
    table = Table(title=f"{title}, {len(runs)} times")
    for heading in ("", "median", "least", "most", *(["ordinary page"] if plain else [])):
        table.add_column(heading, justify="right" if heading else "left")
    found = [msgspec.to_builtins(run) for run in runs]
    for name, middle in medians(runs).items():
        each = [run[name] for run in found]
        values = [middle, min(each), max(each), *([getattr(plain, name)] if plain else [])]
        decimals = 1 if isinstance(each[0], float) else 0
        table.add_row(name.replace("_", " "), *(f"{value:,.{decimals}f}" for value in values))
    return table


@app.command()
def main(
    groups: Annotated[int, typer.Option(help="of the reader, each with a history", min=1, max=1000)] = 50,
    messages: Annotated[int, typer.Option(help="in the group that is scrolled", min=1000)] = 10_000,
    views: Annotated[int, typer.Option(help="first views, each with an empty cache", min=1)] = 7,
    scrolls: Annotated[int, typer.Option(help="ways from the newest message to the oldest", min=1)] = 3,
    speed: Annotated[int, typer.Option(help="pixels a second", min=100)] = 6_000,
    slowdown: Annotated[float, typer.Option(help="of the page's processor, as Chromium emulates it", min=1)] = 1,
    random_seed: Annotated[int, typer.Option("--seed", help="of texts and senders")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all figures there")] = None,
) -> None:
    """Time the web app's first view and its scrolling in Chromium. The exit code is 1 when a promise is not kept."""
    console = Console()
    plan = Plan(groups, messages, views, scrolls, speed, slowdown, random_seed)
    try:
        with tempfile.TemporaryDirectory(prefix="magpie-bench-", ignore_cleanup_errors=True) as name:
            # Embedded servers run as another user under root, and must be able to pass.
            Path(name).chmod(0o755)
            report = asyncio.run(measure(plan, Path(name), console))
    except BenchError as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(2)
    console.print(show(f"first view: {groups} groups, empty cache, Chromium {report.browser}", report.views))
    console.print(show(f"scrolling: {messages:,} messages at {speed:,} px/s", report.scrolls, report.plain))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    failures = broken(report)
    for failure in failures:
        console.print(failure, style="red", markup=False)
    console.print("" if failures else f"kept: {PROMISES}")
    sys.exit(1 if failures else 0)
