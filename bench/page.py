"""What is measured in the page of the web app, in a real Chromium: the first view of a conversation, and scrolling through it."""

import os
import shutil
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from playwright.async_api import Browser, BrowserContext, CDPSession, Page, StorageState, async_playwright

from bench.server import BenchError

OPTIONS = ["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]
SIZE = {"width": 1440, "height": 900}
LONG_MS = 50
"""From here on people feel a frame; browsers call it a long task."""
STRETCH_PX = 4_000
"""One gesture; the frames between two of them count as well."""
NOTHING_NEW_S = 60
PLAIN_ROWS = 1_500

PAINTED = """
window.painted = new Promise((resolve) => {
  const look = () => {
    const messages = [...document.querySelectorAll(".scroller article[data-seq]")].filter((one) => {
      const { top, bottom } = one.getBoundingClientRect();
      return bottom > 0 && top < innerHeight && getComputedStyle(one).visibility === "visible";
    });
    // What this frame shows is painted when the next one begins.
    if (messages.length > 0) requestAnimationFrame((at) => resolve({ at, messages: messages.length }));
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
});
"""
"""Times count from the navigation, as performance.now() does."""

LOADED = """
async () => {
  const { at, messages } = await window.painted;
  const entries = performance.getEntriesByType("resource");
  const bytes = (kind) => entries.filter((one) => kind(one)).reduce((sum, one) => sum + one.encodedBodySize, 0);
  return {
    first_chat_ms: at,
    messages,
    first_paint_ms: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0,
    script_kb: bytes((one) => one.initiatorType === "script" || one.name.endsWith(".js")) / 1000,
    style_kb: bytes((one) => one.name.endsWith(".css")) / 1000,
  };
}
"""

WATCH = """
(speed) => {
  const scroller = document.querySelector(".scroller");
  const watch = { frames: [], jumps: [], blank: 0, stuck_ms: 0, nodes: 0, rows: 0, oldest: Infinity };
  let last = null;
  let tops = new Map();
  let sampled = 0;
  // A task that is queued while a frame is made runs when it is finished: what it sees is what was painted.
  const painted = new MessageChannel();
  const frame = (now) => {
    if (last !== null) watch.frames.push(now - last);
    painted.port2.postMessage(last === null ? 0 : now - last);
    last = now;
    watch.running = requestAnimationFrame(frame);
  };
  painted.port1.onmessage = ({ data: ms }) => {
    const edge = scroller.getBoundingClientRect();
    const placed = new Map();
    const inSight = [];
    let above = Infinity;
    const articles = scroller.querySelectorAll("article[data-seq]");
    for (const article of articles) {
      const { top, bottom } = article.getBoundingClientRect();
      above = Math.min(above, top);
      const seq = Number(article.dataset.seq);
      placed.set(seq, top);
      if (bottom > edge.top && top < edge.bottom) inSight.push(seq);
    }
    watch.oldest = Math.min(watch.oldest, ...inSight);
    watch.rows = Math.max(watch.rows, articles.length);
    if (watch.frames.length % 30 === 0) watch.nodes = Math.max(watch.nodes, document.querySelectorAll("*").length);
    // Scrolling upward moves the messages down the screen: none may go up, nor may all be others after a short frame.
    const anchor = inSight.find((seq) => tops.has(seq)) ?? [...placed.keys()].find((seq) => tops.has(seq));
    if (anchor !== undefined) {
      const moved = placed.get(anchor) - tops.get(anchor);
      if (moved < -1) watch.jumps.push(moved);
    } else if (sampled > 0 && (speed * (performance.now() - sampled)) / 1000 < edge.height) watch.jumps.push(-edge.height);
    // Days and the like, above the first message, are not as high as this.
    if (above > edge.top + 150) watch.blank += 1;
    if (scroller.scrollTop <= 0 && watch.oldest > 1) watch.stuck_ms += ms;
    tops = placed;
    sampled = performance.now();
  };
  watch.running = requestAnimationFrame(frame);
  window.watch = watch;
}
"""


PLAIN = """
(count) => {
  const scroller = document.querySelector(".scroller");
  const rows = [...scroller.querySelectorAll("article[data-seq]")];
  const plain = document.createElement("div");
  plain.className = "scroller";
  for (let number = 1; number <= count; number++) {
    const row = rows[number % rows.length].cloneNode(true);
    row.dataset.seq = number;
    plain.append(row);
  }
  scroller.parentElement.replaceChildren(plain);
  plain.scrollTop = plain.scrollHeight;
}
"""


class View(msgspec.Struct, frozen=True):
    """One first look with an empty cache; ms since the navigation, kB of 1000 bytes as they were transferred."""

    first_chat_ms: float
    """Until messages were on the screen."""
    messages: int
    first_paint_ms: float
    script_kb: float
    style_kb: float


class Scroll(msgspec.Struct, frozen=True):
    """One way from the newest message to the oldest."""

    seconds: float
    frames: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    main_thread_ms: float
    """CPU time of a frame on the page's main thread: what a quiet machine would need of its 16.7 ms."""
    long_frames: int
    """Longer than LONG_MS."""
    jumps: int
    """Frames in which what was in sight went back, or was gone."""
    largest_jump_px: float
    blank_frames: int
    """In which part of the list was not there yet."""
    stuck_ms: float
    """At the upper end of what was there, waiting for older messages."""
    nodes_max: int
    rows_max: int
    heap_mb: float


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Headless, as installed on this machine. Raises BenchError."""
    names = (os.environ.get("CHROMIUM", ""), "chromium", "google-chrome", "chromium-browser")
    executable = next((found for name in names if name and (found := shutil.which(name))), None)
    if executable is None:
        raise BenchError("There is no Chromium here: scripts/browser says how to install one, or set CHROMIUM.")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=OPTIONS)
        try:
            yield browser
        finally:
            await browser.close()


async def log_in(browser: Browser, url: str, username: str, password: str) -> StorageState:
    """Through the form; returns the cookies."""
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(f"{url}/login")
        await page.locator("#username").fill(username)
        await page.locator("#password").fill(password)
        await page.locator("form button").click()
        await page.locator(".sidebar").wait_for()
        return await context.storage_state()
    finally:
        await context.close()


async def arrive(browser: Browser, state: StorageState, slowdown: float) -> tuple[BrowserContext, Page]:
    """A window of somebody who is logged in, with nothing in its cache; its processor is `slowdown` times slower."""
    context = await browser.new_context(storage_state=state, viewport=SIZE, locale="en-US")  # type: ignore[arg-type] # TypedDict
    await context.add_init_script(PAINTED)
    page = await context.new_page()
    if slowdown > 1:
        await (await context.new_cdp_session(page)).send("Emulation.setCPUThrottlingRate", {"rate": slowdown})
    return context, page


async def look(browser: Browser, state: StorageState, address: str, slowdown: float) -> View:
    """Open a conversation and wait until it is on the screen."""
    context, page = await arrive(browser, state, slowdown)
    try:
        await page.goto(address, wait_until="commit")
        return msgspec.convert(await page.evaluate(LOADED), View)
    finally:
        await context.close()


async def scroll(browser: Browser, state: StorageState, address: str, speed: int, slowdown: float) -> Scroll:
    """Turn the wheel, at `speed` pixels a second, until the first message of the group is there. Raises BenchError."""
    context, page = await arrive(browser, state, slowdown)
    try:
        await page.goto(address, wait_until="commit")
        await page.evaluate(LOADED)
        return await turn_the_wheel(page, speed)
    finally:
        await context.close()


async def scroll_plain(browser: Browser, state: StorageState, address: str, speed: int, slowdown: float) -> Scroll:
    """The same with `PLAIN_ROWS` copies of the rows in an ordinary page, which no script has a hand in."""
    context, page = await arrive(browser, state, slowdown)
    try:
        await page.goto(address, wait_until="commit")
        await page.evaluate(LOADED)
        await page.wait_for_load_state("networkidle")
        await page.evaluate(PLAIN, PLAIN_ROWS)
        return await turn_the_wheel(page, speed)
    finally:
        await context.close()


async def turn_the_wheel(page: Page, speed: int) -> Scroll:
    """Until message 1 is in sight. Raises BenchError."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    gesture = {
        "x": SIZE["width"] // 2,
        "y": SIZE["height"] // 2,
        "yDistance": STRETCH_PX,
        "speed": speed,
        "gestureSourceType": "mouse",
    }
    busy_s = await busy(devtools)
    await page.evaluate(WATCH, speed)
    oldest, idle_s = float("inf"), 0.0
    while oldest > 1:
        await devtools.send("Input.synthesizeScrollGesture", gesture)
        before, oldest = oldest, await page.evaluate("window.watch.oldest")
        idle_s = 0.0 if oldest < before else idle_s + STRETCH_PX / speed
        if idle_s > NOTHING_NEW_S:
            raise BenchError(f"Scrolling went no further than message {oldest}.")
    watch = await page.evaluate("cancelAnimationFrame(window.watch.running), window.watch")
    busy_s = await busy(devtools) - busy_s
    await devtools.send("HeapProfiler.collectGarbage")
    return summary(watch, busy_s, await page.evaluate("performance.memory.usedJSHeapSize"))


async def busy(devtools: CDPSession) -> float:
    """CPU seconds of the page's main thread so far: what other processes do meanwhile is no part of it."""
    metrics = (await devtools.send("Performance.getMetrics"))["metrics"]
    return next(float(each["value"]) for each in metrics if each["name"] == "TaskDuration")


def summary(watch: dict[str, Any], busy_s: float, heap_bytes: int) -> Scroll:
    """The figures of what WATCH saw."""
    frames: list[float] = watch["frames"]
    cuts = statistics.quantiles(frames, n=100)
    jumps: list[float] = watch["jumps"]
    return Scroll(
        seconds=sum(frames) / 1000,
        frames=len(frames),
        p50_ms=cuts[49],
        p95_ms=cuts[94],
        p99_ms=cuts[98],
        max_ms=max(frames),
        main_thread_ms=busy_s * 1000 / len(frames),
        long_frames=sum(each > LONG_MS for each in frames),
        jumps=len(jumps),
        largest_jump_px=max(map(abs, jumps), default=0.0),
        blank_frames=watch["blank"],
        stuck_ms=watch["stuck_ms"],
        nodes_max=watch["nodes"],
        rows_max=watch["rows"],
        heap_mb=heap_bytes / 1e6,
    )
