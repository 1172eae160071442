"""Mistakes in the settings are one sentence that says what to do."""

from collections.abc import Mapping

import pytest

from app.errors import ConfigError
from app.settings import load

GATEWAY = {
    "IM_ROLE": "gateway",
    "IM_BROKER__KIND": "kafka",
    "IM_DELIVERY__KIND": "redis_pubsub",
    "IM_POSTGRES__DSN": "postgresql://db/im",
    "IM_REDIS__URL": "redis://cache",
    "IM_AUTH__SECRET": "s" * 32,
}

SEVERAL = {"IM_BROKER__KIND": "kafka", "IM_DELIVERY__KIND": "redis_pubsub"}
"""Not in the memory of one process."""
REGISTERED = {**SEVERAL, "IM_CLUSTER__REGISTRY": "redis", "IM_GATEWAY__PUBLIC_WS_URL": "wss://g1/ws"}
LISTED = {"IM_GATEWAY__NODES": "g1=wss://a/ws,g2=wss://b/ws", "IM_GATEWAY__NODE_ID": "g1"}


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"IM_HTPP__PORT": "1"}, "Unknown setting IM_HTPP__PORT"),
        ({"IM_HTTP__PROT": "1"}, r"Unknown setting http\.prot"),
        ({"IM_HTTP": ""}, "Unknown setting IM_HTTP in the environment"),
        ({"IM_HTTP__TRUSTED_PROXIES": "10.0.0.0/99"}, r"http\.trusted_proxies.*'10\.0\.0\.0/99' does not appear"),
        ({"IM_HTTP__ALLOWED_ORIGINS": "[x"}, r"http\.allowed_origins .*write a,b"),
        ({"IM_HTTP__PUBLIC_URL": "chat.example.org"}, r"http\.public_url .*must begin with https://"),
        ({"IM_SECRETS_DIR": "/no/such/folder"}, "secret files in /no/such/folder .*cannot be read"),
        ({"IM_HTTP__PORT": "eighty"}, r"http\.port .*valid integer"),
        ({"IM_ENV": "staging"}, "IM_ENV is 'staging'; use dev, test or production"),
        ({"IM_DELIVERY__GROUP": "routed"}, "delivery.group = routed finds gateways by Redis"),
        (
            {"IM_ROLE": "gateway"},
            "broker.kind = memory works only with role = all; set IM_BROKER__KIND=redis_streams or kafka",
        ),
        (
            {**GATEWAY, "IM_DELIVERY__KIND": "memory"},
            "delivery.kind = memory works only with role = all; set IM_DELIVERY__KIND=redis_pubsub",
        ),
        (
            {**REGISTERED, "IM_BROKER__KIND": "memory"},
            r"broker\.kind = memory stays within this process, but cluster\.registry = redis is for several; set IM_BROKER__KIND",
        ),
        (
            {**REGISTERED, "IM_DELIVERY__KIND": "memory"},
            r"delivery\.kind = memory stays within this process, but cluster\.registry = redis is for several; set IM_DELIVERY",
        ),
        (
            LISTED,
            r"broker\.kind = memory stays within this process, but gateway\.nodes names more than one; set IM_BROKER__KIND=redis_streams",
        ),
        (
            {**LISTED, "IM_BROKER__KIND": "kafka"},
            r"delivery\.kind = memory stays within this process, but gateway\.nodes names more than one; set IM_DELIVERY__KIND",
        ),
        (
            {"IM_ENV": "production"},
            "postgres.dsn is empty, but production needs servers of your own; set IM_POSTGRES__DSN",
        ),
        ({"IM_AUTH__SECRET": "short"}, "auth.secret has 5 characters"),
        ({"IM_ENV": "dev", "IM_TESTING__CRASH_POINT": "before_commit"}, "only for tests"),
        ({"IM_IDS__RENEW_S": "20"}, r"ids\.renew_s is 20; make it at most a third of ids\.lease_s \(30\)"),
        ({"IM_KAFKA__HEARTBEAT_S": "3"}, r"make it at most a third of kafka\.session_timeout_s \(6\)"),
        ({"IM_KAFKA__MIN_INSYNC_REPLICAS": "2"}, r"kafka\.min_insync_replicas is more than kafka\.replication"),
        ({"IM_GATEWAY__NODES": "g1=https://g1/ws"}, r"gateway\.nodes\.0 .*must look like node=wss://host/ws"),
        ({"IM_GATEWAY__NODES": "g1=wss://g1"}, r"gateway\.nodes\.0 .*must look like node=wss://host/ws"),
        ({"IM_GATEWAY__NODES": "g1=wss://a/ws,g2=wss://b/ws,g1=wss://c/ws"}, r"gateway\.nodes .*names g1 twice"),
        (
            {**GATEWAY, "IM_GATEWAY__NODES": "g1=wss://a/ws", "IM_GATEWAY__NODE_ID": "g2"},
            r"gateway\.nodes names g1 but not this gateway \(g2\)",
        ),
        ({"IM_CLUSTER__REGISTRY": "consul"}, r"cluster\.registry .*'redis' or 'etcd'"),
        ({"IM_CLUSTER__REGISTRY": "redis"}, r"where clients reach this gateway.*set IM_GATEWAY__PUBLIC_WS_URL"),
        (
            {**GATEWAY, "IM_CLUSTER__REGISTRY": "redis", "IM_HTTP__PUBLIC_URL": "https://chat.example.org"},
            r"to each gateway by its name, and this one has none; set IM_GATEWAY__NODE_ID",
        ),
        (
            {"IM_CLUSTER__REGISTRY": "redis", "IM_HTTP__PUBLIC_URL": "https://chat.example.org"},
            r"to each gateway by its name, and this one has none; set IM_GATEWAY__NODE_ID",
        ),
        ({**REGISTERED, "IM_GATEWAY__NODES": "g1=wss://a/ws"}, "they register themselves; unset one of the two"),
        ({**REGISTERED, "IM_CLUSTER__HEARTBEAT_S": "2"}, r"make it at most a third of cluster\.lease_s \(3\)"),
        (
            {**REGISTERED, "IM_CLUSTER__POLL_S": "2"},
            r"cluster\.poll_s is 2; make it at most a third of cluster\.lease_s",
        ),
        ({**REGISTERED, "IM_CLUSTER__TIMEOUT_S": "2"}, r"at most cluster\.heartbeat_s \(1\)"),
        ({"IM_GATEWAY__NODE_ID": "g/1"}, r"gateway\.node_id .*must be of letters, digits"),
        ({"IM_GATEWAY__NODE_ID": "g" * 65}, r"gateway\.node_id .*at most 64"),
        ({"IM_PRESENCE__SWEEP_S": "20"}, r"presence\.sweep_s .*less than or equal to 10"),
        ({"IM_GRPC__TOKEN": "short"}, r"grpc\.token has 5 characters"),
        ({"IM_GRPC__ENABLED": "false", "IM_GRPC__ANSWERS": "true"}, r"no gateway listens; turn both on"),
        ({"IM_GRPC__ANSWERS": "true"}, r"without a registry nobody knows where gateways listen"),
        ({"IM_GRPC__CA_FILE": "/ca.pem"}, r"grpc\.tls = off encrypts nothing"),
        ({"IM_GRPC__TLS": "on"}, r"grpc\.tls = on needs grpc\.ca_file"),
        ({**GATEWAY, "IM_GRPC__TLS": "on", "IM_GRPC__CA_FILE": "/ca"}, r"needs grpc\.cert_file and .* role = gateway"),
        (
            {**GATEWAY, "IM_ROLE": "consumer", "IM_GRPC__TLS": "mutual", "IM_GRPC__CA_FILE": "/ca"},
            r"grpc\.tls = mutual needs grpc\.cert_file and .* role = consumer",
        ),
        ({"IM_GRPC__CERT_FILE": "/cert.pem"}, r"grpc\.cert_file and grpc\.key_file belong together"),
        ({"IM_GRPC__RETRY_MIN_S": "10"}, r"grpc\.retry_min_s is more than grpc\.retry_max_s"),
        ({"IM_GATEWAY__ORIGINS": "wss://a.org; script-src *"}, r"gateway\.origins\.0 .*must look like wss://host"),
        ({"IM_GATEWAY__ORIGINS": "a.org"}, r"gateway\.origins\.0 .*must look like wss://host"),
        ({"IM_GATEWAY__NODES": "g1=wss://g1;x/ws"}, r"gateway\.nodes\.0 .*must look like node=wss://host/ws"),
        ({"IM_GATEWAY__GRPC_ADDRESS": "g1"}, r"gateway\.grpc_address .*must look like host:port"),
        ({"IM_GATEWAY__PUBLIC_WS_URL": "https://a/ws"}, r"gateway\.public_ws_url .*must look like wss://host/ws"),
        ({"IM_ETCD__USERNAME": "im"}, "set both or neither"),
        ({"IM_ETCD__PREFIX": "magpie"}, r"etcd\.prefix .*must end with a slash"),
        ({"IM_ETCD__ENDPOINTS": "etcd:2379"}, r"etcd\.endpoints\.0 .*must begin with https://"),
        ({"IM_ETCD__ENDPOINTS": ""}, r"etcd\.endpoints .*at least 1 item"),
        ({"IM_ETCD__CA_FILE": "/ca.pem"}, r"http://localhost:2379 encrypts nothing; use https://"),
        (
            {"IM_ETCD__ENDPOINTS": "http://im:hidden@etcd:2379", "IM_ETCD__CA_FILE": "/ca.pem"},
            r"etcd\.endpoints\.0 .*must hold neither user name nor password",
        ),
        (
            {"IM_ETCD__ENDPOINTS": "http://etcd:2379", "IM_ETCD__USERNAME": "im", "IM_ETCD__PASSWORD": "hidden"},
            r"etcd\.password would be readable on the way to http://etcd:2379",
        ),
        ({"IM_ETCD__KEY_FILE": "/key.pem"}, "proves nothing without its certificate"),
        ({"IM_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}, "needs kafka.sasl_username and kafka.sasl_password"),
        ({"IM_KAFKA__SASL_USERNAME": "im"}, "PLAINTEXT sends neither"),
        ({"IM_KAFKA__SSL_CA_FILE": "/ca.pem"}, "PLAINTEXT encrypts nothing; use SSL or SASL_SSL"),
        (
            {"IM_KAFKA__SECURITY_PROTOCOL": "SSL", "IM_KAFKA__SSL_KEY_FILE": "/key.pem"},
            "proves nothing without its certificate",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], sentence: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=sentence) as refused:
        load()
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_a_gateway_of_the_list_is_welcome(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**GATEWAY, "IM_GATEWAY__NODES": "g1=wss://a/ws", "IM_GATEWAY__NODE_ID": "g1"}.items():
        monkeypatch.setenv(name, value)
    assert load().gateway.node_id == "g1"


@pytest.mark.parametrize(
    "variables", [{**LISTED, **SEVERAL}, REGISTERED, {**LISTED, "IM_GATEWAY__NODES": "g1=wss://chat.example.org/ws"}]
)
def test_one_process_for_everything_may_be_one_of_several_or_be_named(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load().role == "all"


def test_an_api_asks_the_registry_where_gateways_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**GATEWAY, "IM_ROLE": "api", "IM_CLUSTER__REGISTRY": "etcd"}.items():
        monkeypatch.setenv(name, value)
    assert load().cluster.registry == "etcd"


def test_a_password_for_an_etcd_of_this_machine_needs_no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_ETCD__ENDPOINTS", "http://127.0.0.1:2379,http://[::1]:2379,https://etcd:2379")
    monkeypatch.setenv("IM_ETCD__USERNAME", "im")
    monkeypatch.setenv("IM_ETCD__PASSWORD", "secret")
    assert load().etcd.username == "im"


def test_kafka_over_tls_with_a_password_is_welcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IM_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("IM_KAFKA__SASL_USERNAME", "im")
    monkeypatch.setenv("IM_KAFKA__SASL_PASSWORD", "secret")
    monkeypatch.setenv("IM_KAFKA__SSL_CA_FILE", "/ca.pem")
    assert load().kafka.sasl_mechanism == "SCRAM-SHA-512"
