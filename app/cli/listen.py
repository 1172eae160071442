"""Sockets to listen on, taken before anything else is started."""

import errno
import socket

from app.errors import ConfigError


def bind(host: str, port: int, setting: str) -> socket.socket:
    """A TCP socket bound to the first address of `host` (empty: all) and `port` (0: any free one), not yet listening.

    `setting` is the prefix of the variables to name in errors, for example `IM_HTTP`. Raises ConfigError.
    """
    try:
        flags = socket.AI_PASSIVE
        family, kind, proto, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)[
            0
        ]
    except (OSError, UnicodeError):
        raise ConfigError(f"{host!r} is not an address of this machine; correct {setting}__HOST.") from None
    listener = socket.socket(family, kind, proto)
    try:
        # A restart must not wait for connections of the last run to time out.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise refusal(error, host, port, setting) from None
    return listener


def refusal(error: OSError, host: str, port: int, setting: str) -> ConfigError:
    """The error for an address that cannot be listened on."""
    if error.errno == errno.EADDRINUSE:
        text = f"Port {port} on {host} is in use by another program; stop that one or set {setting}__PORT."
    elif error.errno in (errno.EACCES, errno.EPERM):
        text = f"Port {port} is not allowed to this user; set {setting}__PORT to 1024 or above."
    elif error.errno == errno.EADDRNOTAVAIL:
        text = f"{host} is not an address of this machine; correct {setting}__HOST."
    else:
        text = f"Cannot listen on {host} port {port}: {error.strerror}; correct {setting}__HOST or {setting}__PORT."
    return ConfigError(text)
