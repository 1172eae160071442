"""Rate limits of HTTP: register and login by address, everything else by user; failed credentials by address too."""

from collections.abc import Awaitable, Callable

from app.errors import RateLimited
from app.protocol.endpoint import Limit
from app.settings import Limits

Take = Callable[[str, int], Awaitable[float]]
"""(bucket, tokens a minute) → 0.0 = granted, else seconds until a token is there. Raises Busy when too many wait already."""


class RequestLimits:
    """A bucket's burst is the minute's number."""

    def __init__(self, take: Take, limits: Limits) -> None:
        self._take = take
        self._per_minute: dict[Limit, int] = {
            "api": limits.api_per_minute,
            "login": limits.login_per_minute,
            "register": limits.register_per_minute,
        }

    async def check(self, limit: Limit, who: str) -> None:
        """`who` is `user:ID` or `ip:ADDRESS`. Raises RateLimited or Busy."""
        wait_s = await self._take(f"{limit}:{who}", self._per_minute[limit])
        if wait_s > 0:
            raise RateLimited("too many requests; slow down", retry_after_ms=max(1, round(wait_s * 1000)))
