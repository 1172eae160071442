"""Who may open a connection now: bounds on all, on an address and on a user, and on how many come at once.

Counted from before the credential is looked at until the end of the connection, so attempts under way count, too.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from app.errors import Busy
from app.metrics import Metrics
from app.sections import Gateway as Options
from app.storage.ratelimit import LocalBuckets, Take
from app.web.gateway.bucket import LocalBucket

RETRY_MS = 5000
"""A bound is reached: connections last for hours, so one that ends is not to be expected sooner."""
SOON_MS = 1000
"""It is about this gateway or this second: another one, or a moment later, will do."""
IPV6_PREFIX = 64
"""One customer has at least so many addresses (RFC 6177), as Nginx in front counts them."""

K = TypeVar("K", str, int)


class Admission:
    """Counts connections. Every refusal is Busy: an answer before the upgrade that costs nothing, with the reason in its details."""

    def __init__(self, options: Options, metrics: Metrics) -> None:
        self._options = options
        self._metrics = metrics
        self._uncounted = [ipaddress.ip_network(network) for network in options.connections_per_ip_except]
        self._bucket = LocalBucket(options.admission_per_second, options.admission_burst)
        # More users than may be here: the one unused for longest is forgotten.
        self._user_buckets = LocalBuckets(buckets_max=options.max_connections)
        self._all = 0
        self._of_address: Counter[str] = Counter()
        self._of_user: Counter[int] = Counter()

    @contextmanager
    def arriving(self, address: str) -> Iterator[None]:
        """Somebody at this address tries, and may stay. Raises Busy."""
        if self._all >= self._options.max_connections:
            raise self.refusal("full", "this gateway is full; try another", RETRY_MS)
        counted = self._counted(address)
        if counted and self._of_address[counted] >= self._options.connections_per_ip:
            raise self.refusal("address", "too many connections from your address; close one", RETRY_MS)
        self._all += 1
        try:
            with _one_more(self._of_address, counted):
                yield
        finally:
            self._all -= 1

    @contextmanager
    def admitted(self, user_id: int) -> Iterator[None]:
        """It is this user. Raises Busy, also so that a reconnect storm comes in by and by.

        Called for the authenticated only, and for upgrades: nobody else can use up the admission of the others. Nor can one user.
        """
        if self._of_user[user_id] >= self._options.connections_per_user:
            raise self.refusal("user", "you have too many connections; close one", RETRY_MS)
        often = Take(str(user_id), self._options.admission_user_burst, self._options.admission_user_per_second)
        wait_s = self._user_buckets.take(often)
        if wait_s > 0:
            raise self.refusal("often", "you connect too often; wait a little", SOON_MS + round(wait_s * 1000))
        wait_s = self._bucket.take()
        if wait_s > 0:
            raise self.refusal("storm", "too many connections at once; try again", SOON_MS + round(wait_s * 1000))
        with _one_more(self._of_user, user_id):
            yield

    def refusal(self, reason: str, message: str, retry_after_ms: int = SOON_MS) -> Busy:
        """Count a refusal; the error to raise."""
        self._metrics.connections_refused.labels(reason).inc()
        return Busy(message, retry_after_ms=retry_after_ms, details={"reason": reason})

    @property
    def counts(self) -> tuple[int, int, int]:
        """Connections, addresses and users counted now."""
        return self._all, len(self._of_address), len(self._of_user)

    def _counted(self, address: str) -> str:
        """What an address counts as; empty: as nothing."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return ""  # the peer has none: a local socket
        if isinstance(ip, ipaddress.IPv6Address):
            ip = ip.ipv4_mapped or ip
        if _is_in(ip, self._uncounted):
            return ""
        return str(ip) if ip.version == 4 else str(ipaddress.IPv6Network((int(ip), IPV6_PREFIX), strict=False))


def _is_in(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
    networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network],
) -> bool:
    return any(ip in network for network in networks)


@contextmanager
def _one_more(counts: Counter[K], key: K) -> Iterator[None]:
    """Counted while the block runs; an empty key is not."""
    if not key:
        yield
        return
    counts[key] += 1
    try:
        yield
    finally:
        counts[key] -= 1
        if not counts[key]:
            del counts[key]
