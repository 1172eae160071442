"""The configuration of an Nginx in front of Magpie, from the settings and from what only the operator knows. Same input, same text.

The template is `deploy/nginx/nginx.conf.j2`. Headers, types and errors come from the modules that answer without a proxy.
"""

import ipaddress
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import jinja2

from app.errors import AppError, BadRequest, ConfigError, Internal, NotFound, RateLimited, SendTimeout
from app.parts import Parts
from app.settings import ROOT, Settings
from app.values import NODE_ID
from app.web.middlewares import MESSAGES, error_body, security_headers
from app.web.web_app import FOREVER, TEXTS, TYPES, UNKNOWN_TYPE

FOLDER = ROOT / "deploy" / "nginx"
WORKER_CONNECTIONS = 65536
KEEPALIVE_MARGIN_S = 5
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
UNSAFE = re.compile(r'["\\$\x00-\x1f\x7f]')

ANSWERS: Mapping[int, AppError] = {
    404: NotFound(MESSAGES[404]),
    413: BadRequest(MESSAGES[413]),
    429: RateLimited("too many connections from this address; close some"),
    502: Internal("the server cannot be reached; the request may or may not have taken effect"),
    504: SendTimeout("the server did not answer in time"),
}
"""What Nginx says by itself: status → the error that clients read."""


@dataclass(frozen=True)
class Front:
    """What the settings of the application do not know. Addresses are `host:port`; a folder or port of "" or 0 means none."""

    certificate: str
    key: str
    apis: tuple[str, ...]
    gateways: Mapping[str, str]
    """Node id → address; empty: the apis serve sockets too (role = all)."""
    listen: tuple[str, ...] = ("0.0.0.0", "[::]")  # noqa: S104 - the edge is where everybody may connect
    https_port: int = 443
    http_port: int = 80
    web_folder: str = ""
    """The built web app on the machine of Nginx."""
    state: str = ""
    """Folder for pid, logs and temporary files; empty: where this Nginx was built to put them."""
    user: str = ""
    hsts_s: int = 0
    connections_per_address: int = 1000
    load_balancers: tuple[str, ...] = ()
    """Networks in front of Nginx whose X-Forwarded-For it believes."""
    http2_directive: bool = False
    """Nginx 1.25.1 and newer warn of HTTP/2 as a parameter of `listen`; older ones know nothing else."""


def render(settings: Settings, front: Front) -> str:
    """The whole `nginx.conf`. Raises ConfigError for what does not fit together or could say something else to Nginx."""
    public = _public_url(settings)
    _check_nodes(settings, front, public)
    if not settings.http.trusted_proxies:
        raise ConfigError(
            "http.trusted_proxies is empty, so everybody would share the rate limits of Nginx's own address; set "
            "IM_HTTP__TRUSTED_PROXIES to the networks from which Nginx connects."
        )
    if not front.apis:
        raise ConfigError("There is no api to pass requests to; name one.")
    for address in (*front.apis, *front.gateways.values()):
        _check_address(address)
    _check_trust(settings, front)
    for address in front.listen:
        _check_address(f"{address}:1")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML; `quoted` and the checks above keep values inside their places
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = _quoted
    logs = front.state or "/var/log/nginx"
    return environment.get_template("nginx.conf.j2").render(
        _from_settings(settings)
        | {
            "certificate": front.certificate,
            "key": front.key,
            "apis": sorted(set(front.apis)),
            "gateways": sorted(set(front.gateways.values() or front.apis)),
            "nodes": dict(sorted(front.gateways.items())),
            "listen": front.listen,
            "https_port": front.https_port,
            "http_port": front.http_port,
            "web_folder": front.web_folder,
            "state": front.state,
            "access_log": f"{logs}/access.log",
            "error_log": f"{logs}/error.log",
            "user": front.user,
            "hsts_s": front.hsts_s,
            "connections_per_address": front.connections_per_address,
            "load_balancers": sorted(map(_network, front.load_balancers)),
            "http2_directive": front.http2_directive,
            "http2_on_listen": "" if front.http2_directive else " http2",
            "worker_connections": WORKER_CONNECTIONS,
            "host": public.hostname,
            "authority": public.netloc,
            "answers": {status: json.dumps(error_body(error, "$request_id")) for status, error in ANSWERS.items()},
        }
    )


def _from_settings(settings: Settings) -> dict[str, object]:
    http = settings.http
    extensions: dict[str, list[str]] = {}
    for suffix, name in sorted(TYPES.items()):
        extensions.setdefault(name, []).append(suffix.removeprefix("."))
    return {
        "token_ttl_s": settings.auth.token_ttl_s,
        "header_timeout_s": math.ceil(http.header_timeout_s),
        "body_timeout_s": math.ceil(http.body_timeout_s),
        "max_body_bytes": http.max_body_bytes,
        "keepalive_timeout_s": math.ceil(http.keepalive_timeout_s),
        "upstream_keepalive_s": max(1, math.floor(http.keepalive_timeout_s) - KEEPALIVE_MARGIN_S),
        "backlog": http.backlog,
        "heartbeat_s": math.ceil(settings.gateway.heartbeat_s),
        "send_timeout_s": math.ceil(settings.messages.send_timeout_s),
        "headers": security_headers(Parts(settings, lambda _: None).directory.origins()),
        "cache_control": FOREVER,
        "types": {name: " ".join(suffixes) for name, suffixes in extensions.items()},
        "unknown_type": UNKNOWN_TYPE,
        "text_types": " ".join(sorted({TYPES[suffix] for suffix in TEXTS})),
    }


def _public_url(settings: Settings) -> SplitResult:
    parts = urlsplit(settings.http.public_url)
    if parts.scheme != "https" or parts.path.strip("/"):
        raise ConfigError(
            "http.public_url is the address that Nginx serves; set IM_HTTP__PUBLIC_URL, for example to https://chat.example.org."
        )
    _check_address(parts.netloc if parts.port else f"{parts.netloc}:443")
    return parts


def _check_nodes(settings: Settings, front: Front, public: SplitResult) -> None:
    """The list that users are sent by and the one that Nginx routes by must be one list. Raises ConfigError."""
    for node in front.gateways:
        if not NODE_ID.fullmatch(node):
            raise ConfigError(
                f"{node!r} is no node id for an address; use up to 64 letters, digits, dots, dashes and underscores."
            )
    if len({node.lower() for node in front.gateways}) < len(front.gateways):
        raise ConfigError("Two node ids differ only in case; Nginx takes them for one.")
    listed = settings.gateway.ws_urls
    if not (front.gateways or listed) and (left := _leaves_sockets(settings)):
        raise ConfigError(f"{left}; name each by its gateway.node_id: --gateway NODE=HOST:PORT.")
    if listed and (unknown := sorted(set(front.gateways) - set(listed))):
        raise ConfigError(
            f"gateway.nodes does not name {', '.join(unknown)}, so nobody would be sent there; add it to IM_GATEWAY__NODES."
        )
    for node, url in listed.items():
        if urlsplit(url).netloc != public.netloc:
            continue  # reached without this proxy
        if node not in front.gateways:
            raise ConfigError(
                f"gateway.nodes sends users to {node}, whose address is missing; name it: --gateway {node}=host:port."
            )
        if url != f"wss://{public.netloc}/ws/{node}":
            raise ConfigError(
                f"gateway.nodes has {url} for {node}, which leads to any gateway; it must be wss://{public.netloc}/ws/{node}."
            )


def _check_trust(settings: Settings, front: Front) -> None:
    """What is on Nginx's own machine sees it come from there, and must believe it. Raises ConfigError."""
    networks = [ipaddress.ip_network(network) for network in settings.http.trusted_proxies]
    for address in (*front.apis, *front.gateways.values()):
        came_from = _loopback(address.rpartition(":")[0])
        if came_from and not any(came_from in network for network in networks):
            raise ConfigError(
                f"Nginx connects to {address} from {came_from}, which http.trusted_proxies does not name, so everybody would share the "
                f"rate limits of that; add {came_from} to IM_HTTP__TRUSTED_PROXIES of all processes, or name another address."
            )


def _loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """From where this machine connects to itself there; None: it is another one."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host.lower() == "localhost" else host.strip("[]"))
    except ValueError:
        return None
    if not address.is_loopback:
        return None
    return address if address.version == 6 else ipaddress.IPv4Address("127.0.0.1")


def _leaves_sockets(settings: Settings) -> str:
    """Why an api does not serve sockets for everybody; empty: it does, or gateways are reached without Nginx."""
    if settings.role != "all":
        return f"role = {settings.role} leaves sockets to the gateways"
    if settings.cluster.registry and not settings.gateway.public_ws_url:
        return f"cluster.registry = {settings.cluster.registry} sends users to gateways by their names"
    return ""


def _check_address(address: str) -> None:
    """`host:port` or `[IPv6]:port`. Raises ConfigError."""
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        try:
            fits = bool(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            fits = False
    else:
        fits = bool(HOST.fullmatch(host))
    if not (fits and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"{address!r} is no address; write host:port.")


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ConfigError(f"{text!r} is no network; write for example 10.1.0.0/16.") from None


def _quoted(value: object) -> str:
    text = str(value)
    if UNSAFE.search(text):
        raise ConfigError(f"{text!r} has a character that means something to Nginx; rename it.")
    return f'"{text}"'
