"""Rates that one process keeps by itself: frames of a connection, and new connections."""

from time import monotonic


class LocalBucket:
    """A token bucket in this process: `per_second` a second, at most `burst` at once."""

    __slots__ = ("_at", "_burst", "_per_second", "_tokens")

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._at = monotonic()

    def take(self) -> float:
        """0.0 = granted, else seconds until a token is there."""
        now = monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_second
