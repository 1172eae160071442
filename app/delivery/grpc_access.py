"""Who may call a gateway by gRPC, and how: the token of the cluster, TLS, and the options that both ends must agree on.

grpc.aio binds servers and channels to the loop that runs when they are made, so both are made by whoever starts them.
"""

import asyncio
import hmac
import socket
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from app.errors import ConfigError
from app.sections import Grpc
from app.tls import client_context

LABEL = b"magpie.v1.GatewayPush"
"""The token is HMAC-SHA-256 of this under `auth.secret`: it opens nothing else, and tells nothing about the secret."""
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - to know them, not to bind them
"""Hosts to listen on that are no address for others."""
CONNECT_S = 2.0
"""A process that takes longer for a handshake is frozen; gRPC's own patience is 20 s."""

Arguments = list[tuple[str, Any]]


class Access:
    """`load` before use."""

    def __init__(self, options: Grpc, secret: str) -> None:
        """`secret` is `auth.secret`, the same in all processes."""
        self._options = options
        token = options.token.get_secret_value() or hmac.new(secret.encode(), LABEL, sha256).hexdigest()
        self._authorization = f"Bearer {token}"
        self._at_server: grpc.ServerCredentials | None = None
        self._at_caller: grpc.ChannelCredentials | None = None
        self._loaded = False

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """To be sent with each call."""
        return (("authorization", self._authorization),)

    def admits(self, metadata: Sequence[tuple[str, str | bytes]]) -> bool:
        """Whether a call carries the token."""
        shown = next((value for key, value in metadata if key == "authorization"), "")
        return hmac.compare_digest(str(shown).encode(), self._authorization.encode())

    async def load(self) -> None:
        """Read the certificates, once. Raises ConfigError."""
        if self._loaded:
            return
        if self._options.tls != "off":
            await asyncio.to_thread(self._read)
        # Holds gRPC's thread, which else ends with the last channel, and is waited for on the loop.
        grpc.aio.init_grpc_aio()
        self._loaded = True

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel of its own to `host:port`; connects at the first call."""
        o = self._options
        keepalive_ms = round(o.keepalive_s * 1000)
        arguments = [
            *self._common(),
            ("grpc.keepalive_time_ms", keepalive_ms),
            ("grpc.keepalive_timeout_ms", keepalive_ms),
            ("grpc.keepalive_permit_without_calls", 1),
            # Else two pings without a call between them are all: the third would not be sent.
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", round(o.retry_min_s * 1000)),
            ("grpc.min_reconnect_backoff_ms", round(CONNECT_S * 1000)),
            # Whether a gateway is tried is decided by who calls it.
            ("grpc.max_reconnect_backoff_ms", round(o.retry_min_s * 1000)),
            # Neighbours are not reached by the proxy of http_proxy.
            ("grpc.enable_http_proxy", 0),
            # Closing a channel closes its connection.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self._at_caller is None:
            return grpc.aio.insecure_channel(address, options=arguments)
        return grpc.aio.secure_channel(address, self._at_caller, options=arguments)

    def server(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> grpc.aio.Server:
        """A server without a port."""
        arguments = [
            *self._common(),
            # A second process on the port is a mistake, not a share of the calls.
            ("grpc.so_reuseport", 0),
            # gRPC answers pings more frequent than this with a GOAWAY (too_many_pings); its default is five minutes …
            ("grpc.http2.min_ping_interval_without_data_ms", round(self._options.keepalive_s * 500)),
            # … and two hours between calls.
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        return grpc.aio.server(
            interceptors=interceptors, options=arguments, maximum_concurrent_rpcs=self._options.concurrent_max
        )

    def bind(self, server: grpc.aio.Server) -> int:
        """Open `grpc.host:grpc.port`; the port. Raises ConfigError."""
        address = _address(self._options.host, self._options.port)
        try:
            if self._at_server is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, self._at_server)
        except RuntimeError:
            raise ConfigError(
                f"gRPC cannot listen on {address}; another process may have the port: set IM_GRPC__PORT or IM_GRPC__HOST."
            ) from None

    def address(self, port: int) -> str:
        """Where others reach a port that is bound."""
        host = self._options.host
        return _address(socket.gethostname() if host in EVERYWHERE else host, port)

    def _common(self) -> Arguments:
        size = self._options.max_message_bytes
        return [("grpc.max_send_message_length", size), ("grpc.max_receive_message_length", size)]

    def _read(self) -> None:
        o = self._options
        # To try them: gRPC would only say that it cannot listen or connect.
        client_context("grpc.*_file", o.ca_file, o.cert_file, o.key_file)
        ca = Path(o.ca_file).read_bytes()
        pair = (Path(o.key_file).read_bytes(), Path(o.cert_file).read_bytes()) if o.cert_file else None
        mutual = o.tls == "mutual"
        if pair is not None:
            self._at_server = grpc.ssl_server_credentials(
                [pair], root_certificates=ca if mutual else None, require_client_auth=mutual
            )
        key, chain = pair if pair is not None and mutual else (None, None)
        self._at_caller = grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=chain)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
