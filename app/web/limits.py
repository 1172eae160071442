"""Rate limits of HTTP: register and login by address, everything else by user; failed credentials by address too."""

import ipaddress
from collections.abc import Awaitable, Callable

from app.errors import RateLimited
from app.protocol.endpoint import Limit
from app.sections import Limits

HOST_BITS = 64
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

    async def check_user(self, limit: Limit, user_id: int) -> None:
        """Raises RateLimited or Busy."""
        await self._check(f"{limit}:user:{user_id}", limit)

    async def check_address(self, limit: Limit, address: str) -> None:
        """`address` as text; all of an IPv6 /64 counts as one, since that is what one customer gets. Raises RateLimited or Busy."""
        await self._check(f"{limit}:ip:{_network(address)}", limit)

    async def _check(self, bucket: str, limit: Limit) -> None:
        wait_s = await self._take(bucket, self._per_minute[limit])
        if wait_s > 0:
            raise RateLimited("too many requests; slow down", retry_after_ms=max(1, round(wait_s * 1000)))


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed) >> HOST_BITS << HOST_BITS))
