"""What single options must look like. Each function gives the value back, or raises ValueError with what it must be."""

import ipaddress
import re
from urllib.parse import urlsplit

HOST = re.compile(r"[^\s;,'\"@]+")
NODE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Fit for a URL, a channel, a key, and a name in the configuration of Nginx."""
ORIGIN = re.compile(r"wss?://(\*\.)?[A-Za-z0-9.-]+(:([0-9]+|\*))?")


def web_address(value: str) -> str:
    """An address of HTTP, or nothing. It is no place for a password: addresses are shown."""
    parts = urlsplit(value)
    if value and not (parts.scheme in ("http", "https") and parts.netloc):
        raise ValueError("must begin with https:// or http:// and name a host")
    if "@" in parts.netloc:
        raise ValueError("must hold neither user name nor password")
    return value


def is_readable_on_the_way(address: str) -> bool:
    """Whether others on the network can read what is sent to an address of HTTP."""
    parts = urlsplit(address)
    return parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")


def is_ws_address(url: str) -> bool:
    """Whether it names a host and a path below it. The host comes into headers, where a semicolon would begin another rule."""
    parts = urlsplit(url)
    return parts.scheme in ("ws", "wss") and HOST.fullmatch(parts.netloc) is not None and parts.path not in ("", "/")


def ws_address(value: str) -> str:
    """An address of a WebSocket, or nothing."""
    if value and not is_ws_address(value):
        raise ValueError("must look like wss://host/ws")
    return value


def origin(value: str) -> str:
    """Where WebSockets may lead, as the browser's rules name it."""
    if not ORIGIN.fullmatch(value):
        raise ValueError("must look like wss://host, wss://host:port or wss://*.host")
    return value


def gateway(value: str) -> str:
    """`node=wss://host/ws`."""
    node, _, url = value.partition("=")
    if not node or not is_ws_address(url):
        raise ValueError("must look like node=wss://host/ws")
    return value


def each_once(gateways: tuple[str, ...]) -> tuple[str, ...]:
    """No node id is listed twice."""
    nodes = [gateway.partition("=")[0] for gateway in gateways]
    if twice := next((node for node in nodes if nodes.count(node) > 1), None):
        raise ValueError(f"names {twice} twice")
    return gateways


def node_id(value: str) -> str:
    """The name of a gateway, or nothing."""
    if value and not NODE_ID.fullmatch(value):
        raise ValueError("must be of letters, digits, dots, dashes and underscores, at most 64")
    return value


def host_and_port(value: str) -> str:
    """`host:port`, or nothing."""
    host, _, port = value.rpartition(":")
    if value and not (host and port.isdecimal()):
        raise ValueError("must look like host:port")
    return value


def etcd_prefix(value: str) -> str:
    """A folder of keys."""
    if not value.endswith("/"):
        raise ValueError("must end with a slash")
    return value


def network(value: str) -> str:
    """As `10.0.0.0/8`."""
    ipaddress.ip_network(value)
    return value
