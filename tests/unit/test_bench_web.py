"""What the benchmark of the web app makes of what it saw."""

from typing import Any

import pytest

from bench.page import Scroll, View, summary
from bench.web import Plan, Report, broken, medians, show

PLAN = Plan(groups=5, messages=1000, views=3, scrolls=1, speed=6000, slowdown=1, seed=1)


def watched(**changes: Any) -> dict[str, Any]:
    calm = {"frames": [16.0] * 99 + [60.0], "jumps": [], "blank": 0, "stuck_ms": 0, "nodes": 800, "rows": 40}
    return calm | changes


def view(first_chat_ms: float, script_kb: float = 45.0) -> View:
    return View(first_chat_ms, 19, 300.0, script_kb, 4.0)


def report(views: list[View], scrolls: list[Scroll]) -> Report:
    return Report({}, [], "", PLAN, views, scrolls, scrolls[0], medians(views) | medians(scrolls))


def test_frames_jumps_and_load_are_summed_up() -> None:
    found = summary(watched(jumps=[-30.0, -750.0]), busy_s=0.8, heap_bytes=6_000_000)
    assert (found.frames, found.p50_ms, found.p95_ms, found.max_ms, found.long_frames) == (100, 16.0, 16.0, 60.0, 1)
    assert (found.jumps, found.largest_jump_px) == (2, 750.0)
    assert found.main_thread_ms == pytest.approx(8.0)
    assert found.heap_mb == pytest.approx(6.0)


def test_one_slow_view_breaks_no_promise_and_a_slow_median_does() -> None:
    calm = summary(watched(), 0.8, 0)
    assert broken(report([view(900), view(4000), view(1100)], [calm])) == []
    assert broken(report([view(1600), view(4000), view(1100)], [calm])) == [
        "The first chat took 1,600 ms, not less than 1500."
    ]


def test_weight_and_jumps_are_promises_too() -> None:
    jumpy = summary(watched(jumps=[-30.0]), 0.8, 0)
    assert broken(report([view(900, script_kb=130.0)], [jumpy])) == [
        "The script weighs 130 kB, not less than 120.",
        "What was in sight jumped 1 times while scrolling.",
    ]


def test_each_figure_has_its_row() -> None:
    calm = summary(watched(), 0.8, 0)
    assert show("scrolling", [calm, calm], calm).row_count == len(Scroll.__struct_fields__)
