"""`python -m bench.history FILE…`: exit code 0 clean, 1 anomalies or something left unjudged, 2 not a history."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.history.anomalies import KINDS, Report
from bench.history.check import check
from bench.history.load import load
from bench.history.model import HistoryError
from bench.history.unseen import UNSEEN_AFTER_S

app = typer.Typer(add_completion=False)


def table(report: Report) -> Table:
    """The report for people."""
    shown = Table("anomaly", "count", "examples", title="history")
    for kind in KINDS:
        count = report.counts[kind]
        details = [a.detail for a in report.examples if a.kind == kind][:3]
        shown.add_row(kind, str(count), "\n".join(details), style="red" if count else None)
    shown.caption = (
        f"{report.events} events, {report.groups} groups, {report.sends} messages sent, {report.acked} acked,"
        f" {report.shown} shown"
    )
    if report.unread_groups:
        shown.caption += f"\nnot judged: {report.unread_groups} groups whose history nobody read at the end"
    if report.unjudged:
        shown.caption += f"\nnot judged: {report.unjudged} deliveries outstanding when the recording ended"
    return shown


@app.command()
def main(
    files: Annotated[list[Path], typer.Argument(help="JSON lines written by bench.history.Recorder", exists=True)],
    unseen_after_s: Annotated[float, typer.Option(help="how long an online client may wait for a message")] = (
        UNSEEN_AFTER_S
    ),
) -> None:
    """Check recorded client histories against the delivery contract."""
    try:
        report = check(load(files), unseen_after_s=unseen_after_s)
    except HistoryError as error:
        Console(stderr=True).print(str(error), markup=False)
        sys.exit(2)
    Console().print(table(report))
    sys.exit(0 if report.clean else 1)


if __name__ == "__main__":
    app()
