"""When a benchmark fails because others feel slow readers: above both 1.5 times and 20 ms more."""

from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from bench import __main__ as bench
from bench.latency import Summary
from bench.plan import Shape
from bench.results import Measured, RunResult, felt, sum_up
from bench.scenarios import SHAPES, Scenario
from bench.usage import MACHINE, Use

USUAL = Summary(count=1000, p50=10, p90=50, p99=100, p99_9=200, max=300)
IDLE = sum_up([], SHAPES[Scenario.SLOW], Measured(0, {}, {}, end={MACHINE: Use()}, load_s=1), {}, None)


def run(ack_ms: float, delivery_ms: float, *, count: int = 1000) -> RunResult:
    """One whose P99 are these."""
    ack, delivery = (msgspec.structs.replace(USUAL, count=count, p99=p99) for p99 in (ack_ms, delivery_ms))
    return msgspec.structs.replace(IDLE, ack=ack, delivery=delivery)


@pytest.mark.parametrize(
    ("without_ms", "slow_ms", "fails"),
    [
        (100, 150, False),
        (100, 150.1, True),
        # 20 ms are nothing, however many times as much that is.
        (5, 25, False),
        (5, 25.1, True),
        (40, 60, False),
        (40, 60.1, True),
    ],
)
def test_slow_readers_are_felt_above_both_bounds(without_ms: float, slow_ms: float, fails: bool) -> None:
    ack = felt([run(slow_ms, 1)], [run(without_ms, 1)])
    delivery = felt([run(1, slow_ms)], [run(1, without_ms)])
    assert (len(ack), len(delivery)) == (fails, fails)
    if fails:
        found = f"P99 is {slow_ms:.1f} ms with them and {without_ms:.1f} ms without; 1.5 times as much or 20 ms more would pass."
        assert ack == [f"Slow readers are felt: the others' ack {found}"]
        assert delivery == [f"Slow readers are felt: the others' delivery {found}"]


def test_the_median_decides() -> None:
    assert not felt([run(900, 900), run(100, 100), run(100, 100)], [run(90, 90)])
    assert len(felt([run(900, 900), run(900, 900), run(100, 100)], [run(90, 90)])) == 2


def test_of_nothing_counted_nothing_can_be_said() -> None:
    silent = run(0, 0, count=0)
    for slow, without in ((silent, run(100, 100)), (run(1, 1), silent)):
        assert [line.split(":")[0] for line in felt([slow], [without])] == [
            "Nothing can be said of the others' ack P99",
            "Nothing can be said of the others' delivery P99",
        ]


@pytest.mark.parametrize(("slow_ms", "code"), [(150, 0), (151, 1)])
def test_the_exit_code_says_so(monkeypatch: pytest.MonkeyPatch, slow_ms: float, code: int) -> None:
    def measured(name: str, shape: Shape, *_: Any) -> tuple[list[RunResult], list[RunResult]]:
        return [run(slow_ms if shape.slow else 100, 100)], []

    monkeypatch.setattr(bench, "_measure", measured)
    # Nothing is connected, and the limit of this process stays as it is.
    monkeypatch.setattr(bench, "raise_open_files", lambda: 1 << 20)
    done = CliRunner().invoke(bench.app, ["slow"])
    assert done.exit_code == code, done.output
    assert ("Slow readers are felt: the others' ack P99" in done.output) == bool(code)
