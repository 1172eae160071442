"""How a background task gets over a store that fails: it says so once, waits, longer each time, and goes on."""

import asyncio
import random

import asyncpg
import structlog

from app.errors import Busy

log = structlog.get_logger(__name__)

FAILED: tuple[type[BaseException], ...] = (Busy, asyncpg.PostgresError, asyncpg.InterfaceError)
"""A store is away, or cannot do what was asked (a table that is not there yet, a right that is missing). For tasks that chat can do without
for a while; any other exception is a defect and ends the process."""
WAIT_MIN_S = 0.1


class Retries:
    """The waits of one task between its attempts."""

    def __init__(self, event: str, *, max_s: float) -> None:
        """`event` is logged with the first failure of a row; `max_s` is the longest wait."""
        self._event = event
        self._max_s = max_s
        self._wait_s = 0.0

    async def wait(self, error: BaseException, **fields: object) -> None:
        """Wait twice as long as after the failure before, with jitter. `fields` go to the log: no text of messages."""
        if not self._wait_s:
            # What is not expected is for somebody to mend. Only its kind: a driver's message may quote data.
            say = log.warning if isinstance(error, Busy) else log.error
            say(self._event, error=type(error).__name__, sqlstate=getattr(error, "sqlstate", None), **fields)
        self._wait_s = min(max(WAIT_MIN_S, 2 * self._wait_s), self._max_s)
        await asyncio.sleep(self._wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret

    def over(self) -> None:
        """An attempt succeeded."""
        self._wait_s = 0.0
