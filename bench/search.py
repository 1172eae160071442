"""`python -m bench search`: how long searches take among many messages, and whether they find exactly what a plain scan finds."""

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import msgspec
import typer
from aiohttp import ClientSession
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.corpus import Corpus
from bench.latency import Summary, summarise
from bench.plain_scan import KINDS, ask, folded, scan
from bench.plan import Member, Shape
from bench.results import machine
from bench.seed import end_histories, message_id, seed, write_messages
from bench.server import BenchError, Target, own_server, own_stores

DAYS = 30
"""The history's length."""
CHUNK = 20_000
INDEXED_WITHIN_S = 3600
LOOK_S = 0.5
PAGE = 50
app = typer.Typer(add_completion=False)


class Plan(msgspec.Struct, frozen=True):
    """How much of everything."""

    messages: int
    groups: int
    mine: int
    queries: int
    requests: int
    concurrency: int
    seed: int


class Report(msgspec.Struct):
    """What came out. Sizes in MB (10^6 bytes)."""

    machine: dict[str, Any]
    command: list[str]
    messages: int
    mine: int
    """Messages in the caller's groups."""
    index_s: float
    sizes_mb: dict[str, float]
    kinds: dict[str, Summary]
    compared: int
    hits: int
    different: list[str]
    """Queries whose results were not those of the plain scan."""


async def fill(dsn: str, groups: list[int], mine: set[int], plan: Plan) -> dict[int, str]:
    """Write the messages; a few groups are busy and many are not. Returns the folded bodies of the caller's groups by message id."""
    chance, corpus = random.Random(plan.seed), Corpus(plan.seed)
    weights = [1 / (rank + 50) for rank in range(len(groups))]
    chosen = chance.choices(chance.sample(groups, len(groups)), weights, k=plan.messages)
    seqs: Counter[int] = Counter()
    found: dict[int, str] = {}
    began_ms = time.time_ns() // 1_000_000 - DAYS * 86_400_000
    connection = await asyncpg.connect(dsn)
    try:
        for start in range(0, plan.messages, CHUNK):
            rows = []
            for number, group in enumerate(chosen[start : start + CHUNK], start):
                seqs[group] += 1
                ts = began_ms + number * DAYS * 86_400_000 // plan.messages
                found_id, body = message_id(ts, number), corpus.message()
                rows.append((group, seqs[group], found_id, 1, body, ts))
                if group in mine:
                    found[found_id] = folded(body)
            await write_messages(connection, rows)
        await end_histories(connection, seqs)
    finally:
        await connection.close()
    return found


async def wait_until_indexed(dsn: str, console: Console) -> float:
    """Seconds until the server has brought everything into the index. Raises BenchError."""
    began = time.monotonic()
    connection = await asyncpg.connect(dsn)
    try:
        with console.status("indexing") as status:
            while (took := time.monotonic() - began) < INDEXED_WITHIN_S:
                missing = await connection.fetchval(
                    "SELECT sum(s.last_seq - coalesce(p.indexed_seq, 0))"
                    " FROM group_seq AS s LEFT JOIN search_progress AS p USING (group_id)"
                )
                if not missing:
                    # As autovacuum does it after that many rows.
                    await connection.execute("VACUUM ANALYZE search_block")
                    return took
                status.update(f"indexing: {missing:,} messages left")
                await asyncio.sleep(LOOK_S)
    finally:
        await connection.close()
    raise BenchError(f"The index was not complete after {INDEXED_WITHIN_S} s.")


async def sizes(dsn: str) -> dict[str, float]:
    """MB of what searching needs, and of the messages themselves."""
    connection = await asyncpg.connect(dsn)
    try:
        row = await connection.fetchrow(
            """SELECT pg_table_size('search_block') AS "signatures", pg_relation_size('search_block_pkey') AS "blocks (B-tree)",
                   (SELECT sum(pg_total_relation_size(oid)) FROM pg_class
                    WHERE relname LIKE 'messages_p%' AND relkind = 'r')::bigint AS "messages with their indexes" """
        )
    finally:
        await connection.close()
    return {name: size / 1e6 for name, size in (row or {}).items()}


class Searcher:
    """Asks as one user."""

    def __init__(self, http: ClientSession, target: Target, member: Member) -> None:
        self._http = http
        self._url = f"{target.api_url}/search/messages"
        self._headers = {"Authorization": f"Bearer {member.token}"}

    async def page(self, q: str, **params: str) -> dict[str, Any]:
        """One page. Raises BenchError."""
        async with self._http.get(self._url, params={"q": q, **params}, headers=self._headers) as answer:
            text = await answer.read()
            if answer.status != 200:
                raise BenchError(f"A search for {q!r} answered {answer.status}: {text[:200]!r}")
            found: dict[str, Any] = msgspec.json.decode(text)
            return found

    async def everything(self, q: str) -> list[int]:
        """Ids of all hits, page by page."""
        ids: list[int] = []
        before: dict[str, str] = {}
        while True:
            page = await self.page(q, limit=str(PAGE), **before)
            ids += [int(item["message"]["message_id"]) for item in page["items"]]
            if page["next"] is None:
                return ids
            before = {"before": page["next"]}


async def time_them(searcher: Searcher, queries: list[tuple[str, str]], plan: Plan) -> dict[str, Summary]:
    """First pages, `concurrency` at a time, in a random order."""
    taken: dict[str, Counter[int]] = {kind: Counter() for kind in KINDS}
    order = iter(random.Random(plan.seed).choices(queries, k=plan.requests))

    async def asker() -> None:
        for kind, q in order:
            start = time.perf_counter_ns()
            await searcher.page(q)
            taken[kind][(time.perf_counter_ns() - start) // 1000] += 1

    await asyncio.gather(*(asker() for _ in range(plan.concurrency)))
    return {kind: summarise([taken[kind]]) for kind in KINDS} | {"all": summarise(taken.values())}


async def measure(plan: Plan, folder: Path, console: Console) -> Report:
    """Fill, index, time, compare."""
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(own_stores(folder / "stores", console.print))
        # All searches are of one person.
        limits = {"IM_LIMITS__API_PER_MINUTE": "10000000", "IM_SEARCH__WAITING_PER_USER": str(plan.concurrency)}
        target = await stack.enter_async_context(own_server(stores, folder, limits, console.print))
        shape = Shape(plan.groups // plan.mine, 1, plan.mine, 0, 0, 1)
        members = await seed(target.dsn, target.secret, shape, plan.seed)
        groups = [group for member in members for group in member.groups]
        with console.status(f"writing {plan.messages:,} messages"):
            texts = await fill(target.dsn, groups, set(members[0].groups), plan)
        index_s = await wait_until_indexed(target.dsn, console)
        chance = random.Random(plan.seed)
        bodies = list(texts.values())
        queries = [(kind, ask(kind, bodies, chance)) for kind in KINDS for _ in range(plan.queries // len(KINDS))]
        searcher = Searcher(await stack.enter_async_context(ClientSession()), target, members[0])
        with console.status("timing"):
            await time_them(searcher, queries, msgspec.structs.replace(plan, requests=len(queries)))
            kinds = await time_them(searcher, queries, plan)
        hits, different = 0, []
        for _, q in track(queries, "comparing with a plain scan", console=console):
            expected = scan(q, texts)
            hits += len(expected)
            if await searcher.everything(q) != expected or not expected:
                different.append(q)
        return Report(
            machine(),
            sys.argv[1:],
            plan.messages,
            len(texts),
            index_s,
            await sizes(target.dsn),
            kinds,
            len(queries),
            hits,
            different,
        )


def show(report: Report) -> Table:
    """The figures as a table."""
    table = Table(title=f"search: {report.messages:,} messages, {report.mine:,} of them in the caller's groups")
    for heading in ("query", "requests", "P50 ms", "P90 ms", "P99 ms", "max ms"):
        table.add_column(heading, justify="left" if heading == "query" else "right")
    for kind, took in report.kinds.items():
        figures = (took.p50, took.p90, took.p99, took.max)
        table.add_row(kind, f"{took.count:,}", *(f"{figure:,.1f}" for figure in figures), end_section=kind == KINDS[-1])
    return table


@app.command()
def main(
    messages: Annotated[int, typer.Option(min=1000, max=20_000_000)] = 1_000_000,
    groups: Annotated[int, typer.Option(help="over which they are spread", min=1)] = 2_000,
    mine: Annotated[int, typer.Option(help="groups of the user who searches", min=1)] = 50,
    queries: Annotated[int, typer.Option(help="different ones, each with a hit", min=len(KINDS))] = 200,
    requests: Annotated[int, typer.Option(help="first pages that are timed", min=1)] = 4_000,
    concurrency: Annotated[int, typer.Option(help="requests at a time", min=1)] = 4,
    random_seed: Annotated[int, typer.Option("--seed", help="of texts and queries")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all figures there")] = None,
) -> None:
    """Time searches in a new server of our own, and compare what they find with a plain scan."""
    console = Console()
    plan = Plan(messages, groups, mine, queries, requests, concurrency, random_seed)
    try:
        with tempfile.TemporaryDirectory(prefix="magpie-bench-", ignore_cleanup_errors=True) as name:
            # Embedded servers run as another user under root, and must be able to pass.
            Path(name).chmod(0o755)
            report = asyncio.run(measure(plan, Path(name), console))
    except BenchError as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(2)
    console.print(show(report))
    console.print(f"indexed in {report.index_s:,.0f} s: {report.messages / max(report.index_s, 1e-9):,.0f} messages/s")
    console.print("MB: " + ", ".join(f"{name} {size:,.0f}" for name, size in report.sizes_mb.items()))
    console.print(f"{report.compared} queries, {report.hits:,} hits: {len(report.different)} differ from a plain scan")
    for q in report.different:
        console.print(q, style="red", markup=False)
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    sys.exit(1 if report.different else 0)
