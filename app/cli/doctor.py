"""`run.py doctor`: the findings as a table for people or as JSON, and an exit code for scripts."""

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from app.cli.attach import existing_stores
from app.cli.beside import STOP_S, looking
from app.cli.output import answers
from app.cli.progress import Progress
from app.doctor.examine import Doctor, Result
from app.doctor.feature import CHECKS, build_doctor
from app.errors import ConfigError
from app.parts import Parts
from app.settings import Settings

EXIT_FINE, EXIT_WRONG, EXIT_NOT_DONE = 0, 1, 2
REDIS_S = 10.0
"""For a pipeline of a chunk of groups; it may carry some MB."""


async def examine(
    settings: Settings,
    *,
    repair: bool,
    as_json: bool,
    only: Sequence[str],
    settle_s: float,
    statement_s: float,
    unread_max: int,
) -> int:
    """Examine the data of these settings, print what was found, return the exit code. Raises ConfigError when that cannot be done."""
    for name in only:
        if name not in CHECKS:
            raise ConfigError(f"There is no check {name!r}; there are {', '.join(CHECKS)}.")
    errors = Console(stderr=True)
    with Progress(errors) as progress:
        async with existing_stores(settings, progress.step if errors.is_terminal else lambda _: None) as reached:
            progress.step(f"Examining the data{' and mending what can be mended' if repair else ''}")
            async with _within(reached, statement_s) as parts:
                doctor = build_doctor(
                    parts.postgres,
                    parts.redis,
                    parts.broker,
                    settings.messages,
                    only=only,
                    repair=repair,
                    settle_s=settle_s,
                    statement_s=statement_s,
                    lock_s=min(5.0, statement_s),
                    unread_max=unread_max,
                )
                results = await _run(doctor, errors)
    if as_json:
        sys.stdout.write(json.dumps(_as_json(results, repair), indent=2, ensure_ascii=False) + "\n")
    else:
        _show(results, answers(), repair)
    return exit_code(results)


def exit_code(results: Sequence[Result]) -> int:
    """1 when something is wrong still, else 2 when a check could not be done, else 0."""
    if any(result.left for result in results):
        return EXIT_WRONG
    return EXIT_NOT_DONE if any(result.failure for result in results) else EXIT_FINE


def _within(settings: Settings, statement_s: float) -> AbstractAsyncContextManager[Parts]:
    return looking(
        settings,
        {
            "postgres": {
                # PostgreSQL's own limit comes first and leaves the connection in use.
                "command_timeout_s": statement_s + STOP_S,
                # Some mending asks Redis while it holds locks.
                "idle_in_transaction_s": max(REDIS_S + STOP_S, settings.postgres.idle_in_transaction_s),
            },
            "redis": {"command_timeout_s": max(REDIS_S, settings.redis.command_timeout_s)},
        },
    )


async def _run(doctor: Doctor, console: Console) -> list[Result]:
    if not console.is_terminal:
        return await doctor.examine()
    columns = (TextColumn("groups"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("groups", total=None)
        return await doctor.examine(lambda done, total: bar.update(task, completed=done, total=total))


def _show(results: Sequence[Result], console: Console, repair: bool) -> None:
    table = Table("check", "looked at", "wrong", "what", "can be mended", expand=False, show_edge=False)
    for column in (1, 2):
        table.columns[column].justify = "right"
    for result in results:
        what = list(result.examples)
        if result.wrong > len(what) and what:
            what.append("…")
        if result.failure:
            what.append(f"[red]not done: {escape(result.failure)}[/red]")
        if not what:
            what.append(f"[green]✓[/green] {escape(result.check.title)}")
        if result.note:
            what.append(f"[dim]{escape(result.note)}[/dim]")
        looked_at = f"{result.looked_at:,} {result.check.unit}"
        wrong = f"[red]{result.left:,}[/red]" if result.left else "0"
        table.add_row(result.check.name, looked_at, wrong, "\n".join(what), _mending(result, repair))
    console.print(table)
    for result in results:
        if result.left:
            console.print(f"\n[bold]{result.check.name}[/bold]: {escape(result.check.advice)}", highlight=False)
    left = sum(result.left for result in results)
    if any(result.left and result.check.mends for result in results) and not repair:
        console.print(
            "\n`run.py doctor --repair` mends what can be mended, beside a running server too.", highlight=False
        )
    undone = ", ".join(result.check.name for result in results if result.failure)
    if undone:
        console.print(f"\n[red]Not done: {undone}.[/red]")
    console.print(f"\n[red]{left:,} wrong.[/red]" if left else "" if undone else "\n[green]Nothing is wrong.[/green]")


def _mending(result: Result, repair: bool) -> str:
    if not result.wrong:
        return ""
    if not result.check.mends:
        return "no"
    if repair:
        return f"{result.mended:,} mended: {escape(result.check.mends)}"
    return f"yes: {escape(result.check.mends)}"


def _as_json(results: Sequence[Result], repair: bool) -> dict[str, object]:
    return {
        "ok": exit_code(results) == EXIT_FINE,
        "repair": repair,
        "checks": [
            {
                "check": result.check.name,
                "title": result.check.title,
                "looked_at": result.looked_at,
                "unit": result.check.unit,
                "wrong": result.left,
                "mended": result.mended,
                "mendable": bool(result.check.mends),
                "examples": result.examples,
                "note": result.note,
                "failure": result.failure,
                "advice": result.check.advice if result.left else "",
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }
