"""What `run.py nginx` writes, and what it refuses to write."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.cli.nginx_config import Front, render
from app.errors import ConfigError
from app.sections import Gateway
from app.settings import Settings
from app.web.middlewares import security_headers

NODES = ("g1=wss://chat.example.org/ws/g1", "g2=wss://chat.example.org/ws/g2")
GATEWAYS = {"g2": "10.0.0.22:8080", "g1": "10.0.0.21:8080"}
APIS = ("10.0.0.12:8080", "10.0.0.11:8080")


def settings_with(config: Settings, nodes: tuple[str, ...] = NODES, **http: Any) -> Settings:
    http = {"public_url": "https://chat.example.org", "trusted_proxies": ("10.0.0.0/8",)} | http
    return config.model_copy(
        update={
            "http": config.http.model_copy(update=http),
            "gateway": config.gateway.model_copy(update={"nodes": nodes}),
        }
    )


def front_with(**changes: Any) -> Front:
    given = {"certificate": "/etc/magpie/cert.pem", "key": "/etc/magpie/key.pem", "apis": APIS, "gateways": GATEWAYS}
    return Front(**(given | changes))


def test_the_same_input_gives_the_same_text_in_whatever_order(config: Settings) -> None:
    turned = front_with(apis=APIS[::-1], gateways=dict(sorted(GATEWAYS.items())))
    assert render(settings_with(config), front_with()) == render(settings_with(config), turned)


def test_each_gateway_has_its_address_and_others_lead_to_any(config: Settings) -> None:
    text = render(settings_with(config), front_with())
    assert re.search(
        r"map \$uri \$gateway \{\s+default +gateways;\s+\"/ws/g1\" +gateway_g1;\s+\"/ws/g2\" +gateway_g2;\s+\}", text
    )
    assert re.search(r"upstream gateway_g2 \{\s+server 10\.0\.0\.22:8080;\s+\}", text)


def test_headers_are_those_of_the_application(config: Settings) -> None:
    text = render(settings_with(config), front_with(web_folder="/srv/magpie/dist"))
    for name, value in security_headers(["wss://chat.example.org"]).items():
        assert text.count(f'add_header {name} "{value}" always;') == 2, name


def test_assets_of_another_release_are_asked_for_like_all_else(config: Settings) -> None:
    text = render(settings_with(config), front_with(web_folder="/srv/magpie/dist"))
    everything, assets = (text.split(f"location {name} {{")[1].split("}")[0] for name in ("/", "@apis"))
    assert everything == assets


def test_http_2_is_asked_for_as_this_nginx_wants_it(config: Settings) -> None:
    old, new = (render(settings_with(config), front_with(http2_directive=wanted)) for wanted in (False, True))
    assert old.replace(" http2", "") == new.replace("    http2 on;\n", "")
    assert (old.count(" ssl http2"), new.count("http2")) == (4, 1)


def test_only_named_load_balancers_are_believed(config: Settings) -> None:
    assert "real_ip" not in render(settings_with(config), front_with())
    text = render(settings_with(config), front_with(load_balancers=("10.1.0.0/16", "2001:db8::/32")))
    assert re.findall(r"set_real_ip_from (\S+);", text) == ["10.1.0.0/16", "2001:db8::/32"]
    with pytest.raises(ConfigError, match="no network"):
        render(settings_with(config), front_with(load_balancers=("10.1.0.0/16; include x",)))


def test_one_process_for_everything_needs_no_gateways(config: Settings) -> None:
    here = settings_with(config, nodes=(), trusted_proxies=("127.0.0.0/8",))
    text = render(here, front_with(gateways={}, apis=("127.0.0.1:8080",)))
    assert re.search(r"upstream gateways \{[^}]+server 127\.0\.0\.1:8080 ", text)


def test_gateways_that_people_reach_without_the_proxy_are_not_asked_for(config: Settings) -> None:
    nodes = (*NODES, "g3=wss://g3.example.org/ws")
    assert "g3" not in re.sub(r"Content-Security-Policy.*", "", render(settings_with(config, nodes), front_with()))


def test_every_name_that_a_gateway_may_have_is_welcome(config: Settings) -> None:
    longest = Gateway.model_validate(config.gateway.model_dump() | {"node_id": "x" * 64}).node_id
    assert f"gateway_{longest}" in render(settings_with(config, nodes=()), front_with(gateways={longest: "h:1"}))


@pytest.mark.parametrize("node", ["", "a b", 'a"', "a;", "a{}", "$host", "a/b", "a\n", "é", "x" * 65])
def test_a_node_id_that_could_say_something_else_is_refused(config: Settings, node: str) -> None:
    with pytest.raises(ConfigError, match="no node id"):
        render(settings_with(config, nodes=()), front_with(gateways={node: "10.0.0.21:8080"}))


@pytest.mark.parametrize(
    "address",
    ["", "host", ":80", "host:", "host:0", "host:65536", "a b:80", "h;:80", "unix:/x", "[::1:80", "[x]:80", "h:8_0"],
)
def test_an_address_that_is_none_is_refused(config: Settings, address: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        render(settings_with(config), front_with(apis=(address,)))


@pytest.mark.parametrize("path", ['/a"; include /etc/passwd; "', "/a\\", "/$host/cert.pem", "/a\nuser root"])
@pytest.mark.parametrize("option", ["certificate", "key", "web_folder", "state", "user"])
def test_a_path_that_leaves_its_quotes_is_refused(config: Settings, option: str, path: str) -> None:
    with pytest.raises(ConfigError, match="means something to Nginx"):
        render(settings_with(config), front_with(**{option: path}))


@pytest.mark.parametrize(
    "url", ["", "http://chat.example.org", "https://chat.example.org/below", "https://a;b", "https://u@h"]
)
def test_the_public_address_must_be_one_that_nginx_can_serve(config: Settings, url: str) -> None:
    with pytest.raises(ConfigError):
        render(settings_with(config, public_url=url), front_with())


@pytest.mark.parametrize(
    ("nodes", "gateways", "says"),
    [
        (NODES, {"g1": "h:1"}, "--gateway g2=host:port"),
        (NODES, GATEWAYS | {"g3": "h:1"}, "does not name g3"),
        (("g1=wss://chat.example.org/ws",), {"g1": "h:1"}, "leads to any gateway"),
        (("g1=ws://chat.example.org/ws/g1",), {"g1": "h:1"}, "must be wss://"),
        ((), {"g1": "h:1", "G1": "h:2"}, "differ only in case"),
    ],
)
def test_the_list_of_users_and_that_of_nginx_are_one(
    config: Settings, nodes: tuple[str, ...], gateways: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        render(settings_with(config, nodes), front_with(gateways=gateways))


def test_an_api_alone_is_refused_because_nobody_would_serve_sockets(config: Settings) -> None:
    api = settings_with(config, nodes=()).model_copy(update={"role": "api"})
    with pytest.raises(ConfigError, match=r"name each by its gateway\.node_id: --gateway NODE=HOST:PORT"):
        render(api, front_with(gateways={}))
    assert "gateway_g1" in render(api, front_with())
    registry = {"cluster": config.cluster.model_copy(update={"registry": "redis"})}
    with pytest.raises(
        ConfigError, match=r"cluster\.registry = redis sends users to gateways by their names; name each"
    ):
        render(settings_with(config, nodes=()).model_copy(update=registry), front_with(gateways={}))
    elsewhere = settings_with(config, nodes=("g1=wss://g1.example.org/ws",)).model_copy(update={"role": "api"})
    assert "gateway_g1" not in render(elsewhere, front_with(gateways={}))


def test_a_proxy_that_nobody_believes_is_refused(config: Settings) -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        render(settings_with(config, trusted_proxies=()), front_with())


@pytest.mark.parametrize(
    ("address", "trusted", "missing"),
    [
        ("127.0.0.1:8080", "10.0.0.0/8", "127.0.0.1"),
        ("localhost:8080", "10.0.0.0/8", "127.0.0.1"),
        ("127.0.0.5:8080", "127.0.0.5", "127.0.0.1"),
        ("[::1]:8080", "127.0.0.0/8", "::1"),
        ("[::1]:8080", "::/0", ""),
        ("127.0.0.1:8080", "127.0.0.1", ""),
        ("127.0.0.1:8080", "0.0.0.0/0", ""),
        ("10.0.0.11:8080", "10.0.0.0/8", ""),
    ],
)
@pytest.mark.parametrize("of", ["api", "gateway"])
def test_nginx_is_believed_on_its_own_machine_too(
    config: Settings, of: str, address: str, trusted: str, missing: str
) -> None:
    settings = settings_with(config, nodes=(), trusted_proxies=(trusted,))
    front = front_with(apis=(address,)) if of == "api" else front_with(gateways={"g1": address})
    if missing:
        with pytest.raises(ConfigError, match=f"add {missing} to IM_HTTP__TRUSTED_PROXIES"):
            render(settings, front)
    else:
        assert address in render(settings, front)


def test_the_command_takes_the_settings_of_an_api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "IM_ROLE": "api",
        "IM_BROKER__KIND": "kafka",
        "IM_DELIVERY__KIND": "redis_pubsub",
        "IM_HTTP__PUBLIC_URL": "https://chat.example.org",
        "IM_HTTP__TRUSTED_PROXIES": "10.0.0.0/8",
        "IM_GATEWAY__NODES": ",".join(NODES),
    }.items():
        monkeypatch.setenv(name, value)
    options = [f"--gateway={node}={address}" for node, address in GATEWAYS.items()]
    options += [f"--api={APIS[0]}", "--certificate=/c.pem", "--key=/k.pem"]
    printed = CliRunner().invoke(cli, ["nginx", *options])
    assert (printed.exit_code, "gateway_g1" in printed.stdout) == (0, True)
    assert CliRunner().invoke(cli, ["nginx", *options, "-o", str(tmp_path / "nginx.conf")]).stdout == ""
    assert (tmp_path / "nginx.conf").read_text() == printed.stdout
    for wrong in ("--gateway=g1", "--gateway=g1=h:1"):
        assert isinstance(CliRunner().invoke(cli, ["nginx", *options, wrong]).exception, ConfigError)


@pytest.mark.parametrize("where", [{"IM_GATEWAY__NODES": ",".join(NODES)}, {"IM_CLUSTER__REGISTRY": "redis"}])
def test_the_command_asks_for_nothing_that_only_a_gateway_knows(
    monkeypatch: pytest.MonkeyPatch, where: Mapping[str, str]
) -> None:
    public = {"IM_HTTP__PUBLIC_URL": "https://chat.example.org", "IM_HTTP__TRUSTED_PROXIES": "10.0.0.0/8"}
    for name, value in {**public, **where}.items():
        monkeypatch.setenv(name, value)
    options = [f"--gateway={node}={address}" for node, address in GATEWAYS.items()]
    printed = CliRunner().invoke(
        cli, ["nginx", *options, f"--api={APIS[0]}", "--certificate=/c.pem", "--key=/k.pem"], catch_exceptions=False
    )
    assert "gateway_g2" in printed.stdout


SKIPPED = ("missing_resolver",)
"""It asks for a resolver wherever proxy_pass has a variable; ours holds names of upstreams only, which need none."""


@pytest.mark.parametrize("hsts_s", [0, 31_536_000])
def test_gixy_finds_nothing(config: Settings, tmp_path: Path, hsts_s: int) -> None:
    file = tmp_path / "nginx.conf"
    file.write_text(
        render(
            settings_with(config),
            front_with(hsts_s=hsts_s, web_folder="/srv/magpie/dist", load_balancers=("10.1.0.0/16",)),
        )
    )
    # Whether browsers shall insist on HTTPS is the operator's decision.
    skipped = SKIPPED if hsts_s else (*SKIPPED, "hsts_header")
    gixy = [str(Path(sys.executable).parent / "gixy"), "--skips", ",".join(skipped), str(file)]
    done = subprocess.run(gixy, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stdout
    assert "No issues found" in done.stdout
