"""How long to wait before the next attempt: exponential with full jitter, or what the server asked for."""

import random

from app.client.wire import Backoff


class Waits:
    """Counts failed attempts. Not stamina: base, cap and jitter come from each server's `hello` while it runs."""

    def __init__(self, backoff: Backoff, *, retry_after_max_s: float, draw: random.Random) -> None:
        self.backoff = backoff
        self._retry_after_max_s = retry_after_max_s
        self._draw = draw
        self._failures = 0

    def reset(self) -> None:
        """The last attempt succeeded."""
        self._failures = 0

    def next_s(self, retry_after_ms: int | None = None) -> float:
        """Seconds to wait now; never shorter than the server asked, and spread beyond it."""
        spread = self.backoff.base_ms << min(self._failures, 30)
        capped_ms = min(self.backoff.max_ms, spread)
        self._failures += 1
        jitter = self.backoff.jitter
        wait_s = capped_ms * (1 - jitter + jitter * self._draw.random()) / 1000
        asked_s = min((retry_after_ms or 0) / 1000, self._retry_after_max_s)
        return asked_s + wait_s
