"""What every HTTP request passes: a request id, security headers, the mapping of errors, metrics and one log line."""

import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any

import structlog
from aiohttp import web

from app.errors import AppError, BadRequest, Internal
from app.metrics import Metrics

log = structlog.get_logger(__name__)

REQUEST_ID = web.RequestKey("request_id", str)
CLIENT_IP = web.RequestKey("client_ip", str)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src {connect}; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


def edge(metrics: Metrics, trusted_proxies: Sequence[str], gateways: Callable[[], Sequence[str]]) -> Any:
    """The outermost middleware. `gateways` gives those of `security_headers` as they are now.

    Raises ValueError for a trusted proxy that is not a network.
    """
    networks = [ipaddress.ip_network(network) for network in trusted_proxies]

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = secrets.token_hex(8)
        request[CLIENT_IP] = client_ip(request, networks)
        start = perf_counter()
        try:
            response = await handler(request)
        except web.HTTPError as answered:
            response = _of_aiohttp(request, answered)
        except AppError as error:
            response = error_response(request, error)
        except ConnectionError:
            # The client went away while we read from or wrote to it.
            raise
        except Exception:
            # The HTTP edge: a defect is logged once, its details stay inside.
            log.exception("request_failed", request_id=request[REQUEST_ID], route=route_of(request))
            response = error_response(
                request, Internal("the server failed; the request may or may not have taken effect")
            )
        _note(request, response.status, perf_counter() - start, metrics)
        if not response.prepared:
            response.headers.update(security_headers(gateways()))
            response.headers.setdefault("Cache-Control", "no-store")
            # Not the versions of Python and aiohttp.
            response.headers["Server"] = "magpie"
            response.headers["X-Request-Id"] = request[REQUEST_ID]
        return response

    return middleware


def security_headers(gateways: Sequence[str] = ()) -> dict[str, str]:
    """What every answer carries, whoever gives it. `gateways` are origins beside our own that the web app may connect to (`wss://host`)."""
    return HEADERS | {"Content-Security-Policy": POLICY.format(connect=" ".join(["'self'", *gateways]))}


def error_body(error: AppError, request_id: str) -> dict[str, Any]:
    """An error as clients read it."""
    body = {
        "code": error.code,
        "message": error.message,
        "outcome": error.outcome,
        "details": error.details,
        "request_id": request_id,
    }
    return {"error": body}


def error_response(request: web.Request, error: AppError) -> web.Response:
    """The only place where errors become HTTP answers."""
    response = web.json_response(error_body(error, request[REQUEST_ID]), status=error.status)
    if error.retry_after_ms is not None:
        response.headers["Retry-After"] = str(-(-error.retry_after_ms // 1000))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def client_ip(request: web.Request, trusted: Networks) -> str:
    """The peer's address, or what the trusted proxies in front say: the rightmost address that is none of theirs."""
    address = request.remote or "unknown"
    forwarded = [part.strip() for line in request.headers.getall("X-Forwarded-For", []) for part in line.split(",")]
    while _is_in(address, trusted) and forwarded:
        candidate = forwarded.pop()
        try:
            address = str(ipaddress.ip_address(candidate))
        except ValueError:
            break
    return address


def _is_in(address: str, networks: Networks) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def route_of(request: web.Request) -> str:
    """The route's pattern, never the path: paths hold ids and whatever a client sends."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "none"


def _of_aiohttp(request: web.Request, answered: web.HTTPError) -> web.Response:
    error = BadRequest(MESSAGES.get(answered.status, answered.reason))
    response = error_response(request, error)
    response.set_status(answered.status)
    if "Allow" in answered.headers:
        response.headers["Allow"] = answered.headers["Allow"]
    return response


MESSAGES = {
    404: "there is nothing at this address",
    405: "this address does not know this method",
    413: "the request body is too large",
}
"""What is said where no handler was reached: status → message."""


def _note(request: web.Request, status: int, seconds: float, metrics: Metrics) -> None:
    route = route_of(request)
    metrics.http_requests.labels(request.method if request.method in _METHODS else "other", route, str(status)).inc()
    if not route.startswith("/ws"):
        metrics.http_seconds.labels(route).observe(seconds)
    level = log.debug if route in _PROBES else log.warning if status >= 500 else log.info
    level(
        "request_answered",
        method=request.method,
        route=route,
        status=status,
        ms=round(seconds * 1000, 1),
        request_id=request[REQUEST_ID],
        client_ip=request[CLIENT_IP],
    )


_PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked every few seconds, and what they would tell is logged when it changes."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
