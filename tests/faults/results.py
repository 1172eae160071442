"""What the full form found, one file for each row and broker, so that a run cut short goes on where it was; and the report of all of them.

`python -m tests.faults.results` writes docs/faults-report.md from what is there.
"""

import json
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from app.settings import ROOT
from tests.faults.harms import HARMS, OUTAGE_S

FOLDER = ROOT / ".data" / "faults"
REPORT = ROOT / "docs" / "faults-report.md"
OUTAGE = OUTAGE_S[0]
BROKERS = {"redis_streams": "Redis Streams", "kafka": "Kafka"}


@dataclass(frozen=True)
class Result:
    """One row on one broker, after it passed. Times in seconds."""

    row: str
    broker: str
    seed: int
    commit: str
    times: list[float]
    acked: int
    resent: int
    events: int
    lasted_s: float
    grown_mb: float = 0.0
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """Where it is kept."""
        return FOLDER / self.broker / f"{self.row.replace(' ', '-')}.json"

    def keep(self) -> None:
        """Write it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(asdict(self), indent=1) + "\n")


def kept(broker: str) -> Iterator[Result]:
    """The results of a broker, in the order of `HARMS`."""
    for row in HARMS:
        file = FOLDER / broker / f"{row.replace(' ', '-')}.json"
        if file.exists():
            yield Result(**json.loads(file.read_text()))


def current_commit() -> str:
    """What is tried; with a + when the tree has changes."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run([*git, "status", "--porcelain", "app"], capture_output=True, text=True, check=False)
    return (commit.stdout.strip() or "unknown") + ("+" if dirty.stdout.strip() else "")


def table(results: Sequence[Result]) -> str:
    """Markdown rows of one broker."""
    lines = [
        "| harm | times | anomalies | recovered after, median / longest | limit | acked | sent again | seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        harm = HARMS[r.row]
        median, longest = statistics.median(r.times), max(r.times)
        notes = [] if harm.measure.startswith("until everything") else [harm.measure]
        notes += (
            [f"{harm.away_s[0]:g} s away; a gateway grew by {r.grown_mb:.0f} MB at most"]
            if harm.away_s[0] == OUTAGE
            else []
        )
        note = f" ({'; '.join(notes)})" if notes else ""
        lines.append(
            f"| {r.row}{note} | {len(r.times)} | 0 | {median:.1f} / {longest:.1f} s | {harm.limit_s:g} s |"
            f" {r.acked:,} | {r.resent:,} | {r.seed} |"
        )
    return "\n".join(lines)


HEAD = """# Faults in a cluster: the report

Made by `python -m tests.faults.results` from full runs of `make faults BROKER=redis_streams` and `make faults BROKER=kafka` on a machine
with 2 cores that ran everything: PostgreSQL, Valkey, Kafka, one api, two gateways, three consumers, and the load of 200 members in 20
groups who write 500 messages a second in all. [Faults](faults.md) explains load, checker and anomalies;
`make faults BROKER=… FAULTS_SEED=…` repeats a run.

A row is here only if nobody lost, doubled, reordered or missed anything: lost, duplicate, reorder, divergent, gap, phantom, aborted and
unseen all 0, and every member's push, pull and final history agree. Unless a row says otherwise, the time is that from the harm (or, for
what was frozen, its end) until every message that waited at that moment was answered.
"""


def write_report() -> None:
    """Write docs/faults-report.md."""
    parts = [HEAD]
    for broker, name in BROKERS.items():
        results = list(kept(broker))
        if results:
            commits = ", ".join(dict.fromkeys(r.commit for r in results))
            minutes = sum(r.lasted_s for r in results) / 60
            events = sum(r.events for r in results)
            done = {result.row for result in results}
            left = [row for row, harm in HARMS.items() if row not in done and harm.only in ("", broker)]
            missing = f"\n**Not run yet:** {', '.join(left)}.\n" if left else ""
            parts.append(
                f"## {name}\n\nCommit {commits}; {minutes:.0f} minutes; {events:,} recorded events.\n\n{table(results)}\n{missing}"
            )
    REPORT.write_text("\n".join(parts))


if __name__ == "__main__":
    write_report()
