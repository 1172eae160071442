"""`run.py nginx`: writes the configuration of the proxy in front."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from app.errors import ConfigError

Apis = Annotated[
    list[str] | None,
    typer.Option(
        "--api", metavar="HOST:PORT", help="Address of an api; once for each. Default: this machine's http.port."
    ),
]
Gateways = Annotated[
    list[str] | None,
    typer.Option(
        "--gateway",
        metavar="NODE=HOST:PORT",
        help="Node id and address of a gateway; once for each. None: the apis serve sockets, too (role = all).",
    ),
]


def nginx(
    certificate: Annotated[str, typer.Option(help="File with the certificate and its chain.")],
    key: Annotated[str, typer.Option(help="File with its private key.")],
    api: Apis = None,
    gateway: Gateways = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Where to listen; once for each. Default: 0.0.0.0 and [::]."),
    ] = None,
    https_port: Annotated[int, typer.Option(help="Port for HTTPS.", min=1, max=65535)] = 443,
    http_port: Annotated[int, typer.Option(help="Port that redirects to HTTPS; 0: none.", min=0, max=65535)] = 80,
    web_folder: Annotated[
        str, typer.Option(help="The built web app on the machine of Nginx, absolute; empty: the apis serve it.")
    ] = "",
    hsts: Annotated[
        int,
        typer.Option(
            help="Seconds for which browsers insist on HTTPS, for example 31536000; it cannot be taken back.", min=0
        ),
    ] = 0,
    per_address: Annotated[
        int, typer.Option(help="Connections of one address (of an IPv6 /64).", min=1, max=65535)
    ] = 1000,
    user: Annotated[str, typer.Option(help="Whom the workers run as, where Nginx starts as root.")] = "",
    state: Annotated[
        str, typer.Option(help="Folder for pid, logs and temporary files, absolute; for an Nginx without root.")
    ] = "",
    load_balancer: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK", help="In front of Nginx, its X-Forwarded-For is believed; may be repeated."),
    ] = None,
    http2_directive: Annotated[
        bool, typer.Option("--http2-directive", help="Write `http2 on`, for Nginx 1.25.1 and newer.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of stdout.")] = None,
) -> None:
    """Print an nginx.conf for this installation: TLS, assets, balancing over apis, a way to each gateway.

    Reads the settings of an api (http.public_url, gateway.nodes, limits): run it with the same environment. See docs/operations.md.
    """
    from app.cli.describe import PLACEHOLDERS
    from app.cli.nginx_config import Front, render
    from app.cli.output import write
    from app.settings import load

    settings = load(PLACEHOLDERS, serves=False)
    front = Front(
        certificate=certificate,
        key=key,
        apis=tuple(api or (f"127.0.0.1:{settings.http.port}",)),
        gateways=_by_node(gateway or ()),
        listen=tuple(listen or Front.listen),
        https_port=https_port,
        http_port=http_port,
        web_folder=web_folder,
        state=state,
        user=user,
        hsts_s=hsts,
        connections_per_address=per_address,
        load_balancers=tuple(load_balancer or ()),
        http2_directive=http2_directive,
    )
    write(render(settings, front), output)


def _by_node(given: Sequence[str]) -> dict[str, str]:
    """`node=host:port` … as a table. Raises ConfigError."""
    found: dict[str, str] = {}
    for one in given:
        node, equals, address = one.partition("=")
        if not equals:
            raise ConfigError(f"{one!r} names no gateway; write node=host:port.")
        if node in found:
            raise ConfigError(f"--gateway names {node} twice.")
        found[node] = address
    return found
