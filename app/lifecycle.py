"""How a process lives: watched background tasks, waiting for what it needs, and whether it is ready."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from app.errors import Busy

log = structlog.get_logger(__name__)


class Supervisor:
    """Owns the background tasks of one application.

    `spawn` starts a task that is expected to run until `end` or `stop`. If one ends in any other way, that is logged and
    `on_death` is called (the process is asked to stop: a half-dead process loses messages, a dead one is restarted).
    """

    def __init__(self, on_death: Callable[[str], None]) -> None:
        self._on_death = on_death
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start `coroutine` as a supervised task called `name`."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._stopping or task not in self._tasks:
            return
        self._tasks.discard(task)
        log.error("background_task_died", task=task.get_name(), exc_info=None if task.cancelled() else task.exception())
        self._on_death(task.get_name())

    async def end(self, task: asyncio.Task[None], timeout_s: float, ask: Callable[[], None] | None = None) -> None:
        """Cancel one task and wait at most `timeout_s` seconds for it. With `ask`, it is asked to end by itself first, for as long."""
        self._tasks.discard(task)
        if ask is not None:
            ask()
            await asyncio.wait({task}, timeout=timeout_s)
        task.cancel()
        _, pending = await asyncio.wait({task}, timeout=timeout_s)
        if pending:
            log.warning("background_task_ignored_cancel", task=task.get_name())

    async def stop(self, timeout_s: float) -> None:
        """Cancel what still runs and wait at most `timeout_s` seconds for it."""
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=timeout_s)
            for task in pending:
                log.warning("background_task_ignored_cancel", task=task.get_name())


class Readiness:
    """Why this process is not ready, by part; empty means ready. Read by `/readyz`."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._told: set[str] = set()

    def fail(self, part: str, reason: str, cause: object = None) -> None:
        """Mark `part` as not ready; `reason` is shown on `/readyz`, `cause` (it may name hosts) in the log alone."""
        if part not in self._told:
            self._told.add(part)
            # What a store said stands behind the error that callers get.
            cause = getattr(cause, "__cause__", None) or cause
            log.warning("not_ready", part=part, reason=reason, cause=None if cause is None else repr(cause))
        self._reasons[part] = reason

    def expect(self, part: str, reason: str) -> None:
        """The same without a word in the log: nothing is wrong, it is only not there yet, or not any more."""
        self._reasons[part] = reason

    def clear(self, part: str) -> None:
        """`part` works again."""
        self._reasons.pop(part, None)
        if part in self._told:
            self._told.discard(part)
            log.info("ready_again", part=part)

    @property
    def reasons(self) -> dict[str, str]:
        """Part → reason of everything that is not ready now."""
        return dict(self._reasons)


async def until_there(
    step: Callable[[], Awaitable[None]], what: str, readiness: Readiness, *, wait_s: float, pause_max_s: float = 1.0
) -> None:
    """Repeat a first step while it raises Busy, for up to `wait_s` seconds, with growing pauses; `/readyz` says what is waited for.

    Raises Busy when it is not there by then.
    """
    since, pause_s = time.monotonic(), 0.05
    while True:
        try:
            await step()
        except Busy as error:
            readiness.fail("startup", f"waiting for {what}", error)
            if time.monotonic() - since >= wait_s:
                raise
            pause_s = min(2 * pause_s, pause_max_s)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        else:
            readiness.clear("startup")
            return


class CrashPoint:
    """Kills the process at one labelled point, so that tests can prove what survives. Armed only by `testing.crash_point`.

    The setting is `label` or `label:n` for the n-th passage; empty does nothing.
    """

    def __init__(self, setting: str) -> None:
        self._label, _, count = setting.partition(":")
        self._left = int(count or 1)

    def __call__(self, label: str) -> None:
        """Pass the point `label`."""
        if label == self._label:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
