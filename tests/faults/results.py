"""What the full form found, one file for each row and broker, so that a run cut short goes on where it was; and the report of all of them.

`FAULTS=full python -m tests.faults.results` writes docs/faults-report.md: rows that were done here take the place of those it has.
"""

import json
import re
import shutil
import statistics
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from app.settings import ROOT
from tests.faults.conftest import FULL
from tests.faults.gateway_harms import GATEWAY_HARMS, RUSH_ROW, USUAL_RUSH_ROW
from tests.faults.harms import HARMS, OUTAGE_S, Harm

FOLDER = ROOT / ".data" / "faults"
REPORT = ROOT / "docs" / "faults-report.md"
OUTAGE = OUTAGE_S[0]
FAILED = re.compile(r"(?P<seed>\d+)(-(?P<commit>\w+\+?))?\.jsonl")
"""The end of a name in the folder of failures."""


@dataclass(frozen=True)
class Stage:
    """Where rows are done."""

    title: str
    command: str
    harms: Mapping[str, Harm]


STAGES: Mapping[str, Stage] = {
    **{
        broker: Stage(
            title,
            f"make faults BROKER={broker}",
            {row: harm for row, harm in HARMS.items() if harm.only in ("", broker)},
        )
        for broker, title in {"redis_streams": "Redis Streams", "kafka": "Kafka"}.items()
    },
    **{
        f"registry_{registry}": Stage(
            f"Gateways behind Nginx, registered in {title}", f"make faults REGISTRY={registry}", GATEWAY_HARMS
        )
        for registry, title in {"redis": "Redis", "etcd": "etcd"}.items()
    },
}


@dataclass(frozen=True)
class Result:
    """One row on one stage, after it passed. Times in seconds."""

    row: str
    broker: str
    """The name of the stage."""
    seed: int
    commit: str
    times: list[float]
    acked: int
    resent: int
    events: int
    lasted_s: float
    grown_mb: float = 0.0
    errors: Mapping[str, int] = field(default_factory=dict)
    shed: int = 0
    """Handshakes that were answered with 503."""

    @property
    def file(self) -> Path:
        """Where it is kept."""
        return FOLDER / self.broker / f"{_slug(self.row)}.json"

    def keep(self) -> None:
        """Write it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(asdict(self), indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class Failure:
    """A try of a row that failed, and whose history is kept; the commit is empty where it was not noted."""

    row: str
    seed: int
    commit: str


def failures(stage: str) -> Iterator[Failure]:
    """The failed tries of a stage, in the order of its harms."""
    for row in STAGES[stage].harms:
        for file in sorted((FOLDER / "failed").glob(f"{stage}-{_slug(row)}-*.jsonl")):
            if found := FAILED.fullmatch(file.name.removeprefix(f"{stage}-{_slug(row)}-")):
                yield Failure(row, int(found["seed"]), found["commit"] or "")


def keep_failure(history: Path, stage: str, row: str, seed: int) -> None:
    """Keep the history of a try that failed."""
    if history.exists():
        (FOLDER / "failed").mkdir(parents=True, exist_ok=True)
        shutil.copy(history, FOLDER / "failed" / f"{stage}-{_slug(row)}-{seed}-{current_commit()}.jsonl")


def _slug(row: str) -> str:
    return row.replace(" ", "-")


def kept(stage: str) -> Iterator[Result]:
    """The results of a stage, in the order of its harms."""
    for row in STAGES[stage].harms:
        file = FOLDER / stage / f"{_slug(row)}.json"
        if file.exists():
            yield Result(**json.loads(file.read_text()))


def current_commit() -> str:
    """What is tried; with a + when the tree has changes."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run([*git, "status", "--porcelain", "app"], capture_output=True, text=True, check=False)
    return (commit.stdout.strip() or "unknown") + ("+" if dirty.stdout.strip() else "")


def dated(commit: str) -> str:
    """With its day, where this repository knows it."""
    git = ["git", "-C", str(ROOT), "show", "--no-patch", "--format=%cs", commit.removesuffix("+")]
    day = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return f"{commit}, {day}" if day else commit


def line(r: Result) -> str:
    """The row of a table, Markdown."""
    harm = STAGES[r.broker].harms[r.row]
    median, longest = statistics.median(r.times), max(r.times)
    notes = [] if harm.measure.startswith("until everything") else [harm.measure]
    if harm.away_s[0] == OUTAGE:
        notes.append(f"{harm.away_s[0]:g} s away")
    rush = r.row in (RUSH_ROW, USUAL_RUSH_ROW)
    if r.shed or rush:
        notes.append(f"{r.shed:,} handshakes refused with 503")
    if rush or harm.away_s[0] == OUTAGE:
        notes.append(f"a gateway grew by {r.grown_mb:.0f} MB at most")
    note = f" ({'; '.join(notes)})" if notes else ""
    return (
        f"| {r.row}{note} | {len(r.times)} | 0 | {median:.1f} / {longest:.1f} s | {harm.limit_s:g} s | {r.acked:,} | {r.resent:,} |"
        f" {r.events:,} | {r.lasted_s / 60:.1f} min | {r.seed} | {dated(r.commit)} |"
    )


def reported(stage: str) -> Mapping[str, str]:
    """Harm → its row in the report that is there."""
    text = REPORT.read_text() if REPORT.exists() else ""
    _, _, section = text.partition(f"## {STAGES[stage].title}\n")
    lines = [each for each in section.partition("\n## ")[0].splitlines() if each.startswith("|")]
    return {row: each for row in STAGES[stage].harms for each in lines if re.match(rf"\| {re.escape(row)} [|(]", each)}


HEAD = """# Faults in a cluster: the report

Made by `FAULTS=full python -m tests.faults.results` from full runs on a machine with 2 cores that ran everything, PostgreSQL, Valkey and
the load included. For the brokers: one api, two gateways, three consumers, Kafka where it is tried, and 200 members in 20 groups of 10 and
two of 50 and 200, who write 500 messages a second in all. For the gateways: one api, four gateways and a fifth that comes and goes, one
consumer, Redis Streams, Nginx with TLS before everything, and 4,000 members in 400 groups who write 50 messages a second; 8,000 where
everybody comes back at once.
[Faults](faults.md) explains load, checker and anomalies; `FAULTS_SEED=…` beside the command repeats a run.

A row is here only if nobody lost, doubled, reordered or missed anything: lost, duplicate, reorder, divergent, gap, phantom, aborted and
unseen all 0, and every member's push, pull and final history agree. Unless a row says otherwise, the time is that from the harm (or, for
what was frozen, its end) until every message that waited at that moment was answered.

A row stays until it is done again, so each names the commit it was done with. Tries that failed are named below their table as long as
their histories are kept; the cause may be the product, the test or the machine.
"""

TABLE = (
    "| harm | times | anomalies | recovered after, median / longest | limit | acked | sent again | events | took | seed | commit |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def write_report() -> None:
    """Write docs/faults-report.md: what is kept here, and of the rows that were done elsewhere what it says now."""
    parts = [HEAD]
    for name, stage in STAGES.items():
        lines = {**reported(name), **{result.row: line(result) for result in kept(name)}}
        if lines:
            table = [*TABLE, *(lines[row] for row in stage.harms if row in lines)]
            parts.append(f"## {stage.title}\n\n`{stage.command}`\n\n" + "\n".join(table) + "\n")
            left = [row for row in stage.harms if row not in lines]
            if left:
                parts.append(f"**Not run yet:** {', '.join(left)}.\n")
            failed = [
                f"{each.row} (seed {each.seed}{each.commit and ', commit ' + dated(each.commit)})"
                for each in failures(name)
            ]
            if failed:
                parts.append(f"**Tries that failed and were kept:** {', '.join(failed)}.\n")
    REPORT.write_text("\n".join(parts))


if __name__ == "__main__":
    if not FULL:
        raise SystemExit("FAULTS=full is missing: these would be the limits of the short form")
    write_report()
