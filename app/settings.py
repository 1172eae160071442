"""Typed settings: `config/default.toml`, the overlay of `IM_ENV`, secret files, then the environment (`IM_SECTION__KEY`).

Every option, its default and the reason for it stand in `config/default.toml`, types and bounds in `sections.py`. Unknown keys are
refused wherever they come from.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from app import sections as tables
from app.errors import ConfigError
from app.sources import SECRETS_DIR, NamedTexts, checked, read_secret_files
from app.values import is_readable_on_the_way

ROOT = Path(__file__).resolve().parent.parent
CONFIG_DIR = ROOT / "config"
SAMPLE_SECRET_MARK = "sample"  # noqa: S105 - the marker by which sample secrets are recognised and refused
RENEWALS_PER_LEASE = 3
MIN_SECRET_CHARS = 32
"""HMAC-SHA-256 keys shorter than the hash weaken it (RFC 7518, 3.2)."""
BEYOND_A_PROCESS = {"broker": "redis_streams or kafka", "delivery": "redis_pubsub"}
"""Section → the kinds that are not in the memory of one process."""

Environment = Literal["dev", "test", "production"]
Role = Literal["all", "gateway", "api", "consumer"]


class Settings(BaseSettings):
    """The whole configuration of one process, validated."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=False)
    overlay_dir: ClassVar[Path] = CONFIG_DIR

    env: Environment = "dev"
    role: Role
    data_dir: Path
    http: tables.Http
    metrics: tables.Metrics
    postgres: tables.Postgres
    redis: tables.Redis
    embedded: tables.Embedded
    broker: tables.Broker
    redis_streams: tables.RedisStreams
    kafka: tables.Kafka
    delivery: tables.Delivery
    cluster: tables.Cluster
    grpc: tables.Grpc
    etcd: tables.Etcd
    auth: tables.Auth
    limits: tables.Limits
    groups: tables.Groups
    messages: tables.Messages
    search: tables.Search
    lookups: tables.Lookups
    producer: tables.Producer
    consumer: tables.Consumer
    gateway: tables.Gateway
    presence: tables.Presence
    moderation: tables.Moderation
    ids: tables.Ids
    log: tables.Log
    collector: tables.Collector
    testing: tables.Testing

    @property
    def ws_url(self) -> str:
        """Where clients reach this process or the proxy before it; empty: it was never told."""
        url = self.http.public_url
        return self.gateway.public_ws_url or (url and "ws" + url.removeprefix("http").rstrip("/") + "/ws")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - ours reads lists without JSON, and every section
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - it knows no sections
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence, highest first: arguments, environment, secret files, overlay, defaults."""
        sections = {name: name not in ("env", "role", "data_dir") for name in cls.model_fields}
        folder = os.environ.get(SECRETS_DIR)
        secrets = checked(read_secret_files(folder), sections, folder) if folder else {}
        overlay = cls.overlay_dir / f"{os.environ.get('IM_ENV', 'dev')}.toml"
        return (
            init_settings,
            NamedTexts(settings_cls, checked(os.environ, sections, "the environment")),
            NamedTexts(settings_cls, secrets),
            TomlConfigSettingsSource(settings_cls, overlay),
            TomlConfigSettingsSource(settings_cls, CONFIG_DIR / "default.toml"),
        )


def load(overrides: Mapping[str, Any] | None = None, *, serves: bool = True) -> Settings:
    """Read and validate the settings; `overrides` win over every other source. Raises ConfigError with one sentence.

    Without `serves` they are only read, to write about the processes that do: what each gateway must know of itself is not asked for.
    """
    env = os.environ.get("IM_ENV", "dev")
    if env not in ("dev", "test", "production"):
        raise ConfigError(f"IM_ENV is {env!r}; use dev, test or production.")
    try:
        settings = Settings(**dict(overrides or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        name = "IM_" + "__".join(str(part).upper() for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"Unknown setting {where} ({name}); `run.py checkconfig` lists all settings.") from None
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"Setting {where} ({name}): {what}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"A file in {CONFIG_DIR} is not valid TOML: {error}.") from None
    check(settings, serves=serves)
    return settings


def check(settings: Settings, *, serves: bool = True) -> None:
    """Rules across settings; `serves` as in `load`. Raises ConfigError."""
    if settings.role != "all":
        _check_not_memory(settings, "works only with role = all")
        _check_shared(settings, f"role = {settings.role} shares its stores with the other roles")
    if settings.cluster.registry:
        _check_registered(settings)
        if serves:
            _check_place(settings)
    elif settings.role == "api" and not (
        settings.gateway.nodes or settings.gateway.public_ws_url or settings.http.public_url
    ):
        raise ConfigError(
            "role = api serves no WebSockets; set IM_CLUSTER__REGISTRY, IM_GATEWAY__NODES, IM_GATEWAY__PUBLIC_WS_URL, or "
            "IM_HTTP__PUBLIC_URL (of a proxy)."
        )
    _check_delivery(settings.delivery)
    _check_etcd(settings.etcd)
    _check_grpc(settings)
    if serves:
        _check_listed(settings)
    if settings.testing.crash_point and settings.env != "test":
        raise ConfigError("testing.crash_point is only for tests; unset IM_TESTING__CRASH_POINT.")
    _check_renewals(settings)
    if settings.kafka.min_insync_replicas > settings.kafka.replication:
        raise ConfigError("kafka.min_insync_replicas is more than kafka.replication; then nothing could be appended.")
    _check_kafka_security(settings.kafka)
    secret = settings.auth.secret.get_secret_value()
    if settings.env == "production":
        _check_shared(settings, "production needs servers of your own")
    if secret and settings.env != "dev" and SAMPLE_SECRET_MARK in secret.lower():
        raise ConfigError("auth.secret is the sample; make your own, for example with `openssl rand -hex 32`.")
    if secret and len(secret) < MIN_SECRET_CHARS:
        raise ConfigError(f"auth.secret has {len(secret)} characters; use at least {MIN_SECRET_CHARS}.")


def _check_not_memory(settings: Settings, why: str) -> None:
    """Neither broker nor delivery in the memory of a process, which its pushes never leave. Raises ConfigError."""
    for section, others in BEYOND_A_PROCESS.items():
        if getattr(settings, section).kind == "memory":
            raise ConfigError(f"{section}.kind = memory {why}; set IM_{section.upper()}__KIND={others}.")


def _check_shared(settings: Settings, why: str) -> None:
    """Neither embedded stores nor a generated secret. Raises ConfigError."""
    for section, key in (("postgres", "dsn"), ("redis", "url"), ("auth", "secret")):
        if not getattr(getattr(settings, section), key).get_secret_value():
            raise ConfigError(f"{section}.{key} is empty, but {why}; set IM_{section.upper()}__{key.upper()}.")


def _check_registered(settings: Settings) -> None:
    """Rules where gateways register themselves. Raises ConfigError."""
    registry, cluster = settings.cluster.registry, settings.cluster
    if settings.gateway.nodes:
        raise ConfigError(
            f"gateway.nodes lists the gateways, but with cluster.registry = {registry} they register themselves; unset one of the two."
        )
    if cluster.timeout_s > cluster.heartbeat_s:
        raise ConfigError(
            f"cluster.timeout_s is {cluster.timeout_s:g}; make it at most cluster.heartbeat_s ({cluster.heartbeat_s:g}), so that a "
            "heartbeat without an answer does not delay the next."
        )


def _check_place(settings: Settings) -> None:
    """Whether what a gateway registers leads to it, and it alone. Raises ConfigError."""
    registry, gateway = settings.cluster.registry, settings.gateway
    if settings.role in ("all", "gateway") and not (gateway.public_ws_url or settings.http.public_url):
        raise ConfigError(
            f"cluster.registry = {registry} tells others where clients reach this gateway, and it does not know; set "
            "IM_GATEWAY__PUBLIC_WS_URL, for example wss://g1.example.org/ws."
        )
    if settings.role in ("all", "gateway") and not (gateway.public_ws_url or gateway.node_id):
        raise ConfigError(
            f"cluster.registry = {registry} sends users through http.public_url to each gateway by its name, and this one has none; set "
            "IM_GATEWAY__NODE_ID, and give the proxy the same name, or set IM_GATEWAY__PUBLIC_WS_URL."
        )
    _check_not_memory(settings, f"stays within this process, but cluster.registry = {registry} is for several")


def _check_listed(settings: Settings) -> None:
    """Whether this process fits the list of gateways, where there is one. Raises ConfigError."""
    nodes = list(settings.gateway.ws_urls)
    if len(nodes) > 1:
        _check_not_memory(settings, "stays within this process, but gateway.nodes names more than one")
    if nodes and settings.role in ("all", "gateway") and settings.gateway.node_id not in nodes:
        raise ConfigError(
            f"gateway.nodes names {', '.join(nodes)} but not this gateway ({settings.gateway.node_id or 'without a name'}), so nobody "
            "would be sent here; add it, or set IM_GATEWAY__NODE_ID to one of them."
        )


def _check_delivery(delivery: tables.Delivery) -> None:
    """Routes are kept in Redis. Raises ConfigError."""
    if delivery.group == "routed" and delivery.kind == "memory":
        raise ConfigError("delivery.group = routed finds gateways by Redis; set IM_DELIVERY__KIND=redis_pubsub.")


def _check_etcd(etcd: tables.Etcd) -> None:
    """What would be ignored in silence, or fail only at the server. Raises ConfigError."""
    if bool(etcd.username) != bool(etcd.password.get_secret_value()):
        raise ConfigError("etcd.username and etcd.password belong together; set both or neither.")
    if etcd.key_file and not etcd.cert_file:
        raise ConfigError("etcd.key_file is set without etcd.cert_file; a key proves nothing without its certificate.")
    plain = [endpoint for endpoint in etcd.endpoints if endpoint.startswith("http:")]
    if plain and (etcd.ca_file or etcd.cert_file):
        raise ConfigError(
            f"etcd.ca_file or etcd.cert_file names a file, but {plain[0]} encrypts nothing; use https://."
        )
    if etcd.username and (readable := [endpoint for endpoint in plain if is_readable_on_the_way(endpoint)]):
        raise ConfigError(f"etcd.password would be readable on the way to {readable[0]}; use https://.")


def _check_grpc(settings: Settings) -> None:
    """What would be ignored in silence, or fail only when somebody calls. Raises ConfigError."""
    grpc, role = settings.grpc, settings.role
    if grpc.answers and not grpc.enabled:
        raise ConfigError("grpc.answers is on, but grpc.enabled is off, so no gateway listens; turn both on.")
    if grpc.answers and not settings.cluster.registry:
        raise ConfigError(
            "grpc.answers is on, but without a registry nobody knows where gateways listen; set IM_CLUSTER__REGISTRY, or turn it off."
        )
    if bool(grpc.cert_file) != bool(grpc.key_file):
        raise ConfigError("grpc.cert_file and grpc.key_file belong together; set both or neither.")
    if grpc.tls == "off":
        if grpc.ca_file or grpc.cert_file:
            raise ConfigError("grpc.*_file names a file, but grpc.tls = off encrypts nothing; use on or mutual.")
    elif not grpc.ca_file:
        raise ConfigError(f"grpc.tls = {grpc.tls} needs grpc.ca_file, so that callers know a gateway from an impostor.")
    elif not grpc.cert_file and (role in ("all", "gateway") or (role == "consumer" and grpc.tls == "mutual")):
        raise ConfigError(f"grpc.tls = {grpc.tls} needs grpc.cert_file and grpc.key_file with role = {role}.")
    token = grpc.token.get_secret_value()
    if token and len(token) < MIN_SECRET_CHARS:
        raise ConfigError(f"grpc.token has {len(token)} characters; use at least {MIN_SECRET_CHARS}, or none.")
    if grpc.retry_min_s > grpc.retry_max_s:
        raise ConfigError("grpc.retry_min_s is more than grpc.retry_max_s.")


def _check_kafka_security(kafka: tables.Kafka) -> None:
    """What would be ignored in silence, or fail only at the cluster. Raises ConfigError."""
    protocol = kafka.security_protocol
    named, known = bool(kafka.sasl_username), bool(kafka.sasl_password.get_secret_value())
    if protocol.startswith("SASL") and not (named and known):
        raise ConfigError(f"kafka.security_protocol = {protocol} needs kafka.sasl_username and kafka.sasl_password.")
    if not protocol.startswith("SASL") and (named or known):
        raise ConfigError(
            f"kafka.sasl_username or kafka.sasl_password is set, but kafka.security_protocol = {protocol} sends neither; use SASL_SSL."
        )
    if not protocol.endswith("SSL") and (kafka.ssl_ca_file or kafka.ssl_cert_file or kafka.ssl_key_file):
        raise ConfigError(
            f"kafka.ssl_* names a file, but kafka.security_protocol = {protocol} encrypts nothing; use SSL or SASL_SSL."
        )
    if kafka.ssl_key_file and not kafka.ssl_cert_file:
        raise ConfigError(
            "kafka.ssl_key_file is set without kafka.ssl_cert_file; a key proves nothing without its certificate."
        )


def _check_renewals(settings: Settings) -> None:
    """Leases outlive a lost renewal. Raises ConfigError."""
    leases = (
        ("ids.renew_s", settings.ids.renew_s, "ids.lease_s", settings.ids.lease_s),
        (
            "redis_streams.renew_s",
            settings.redis_streams.renew_s,
            "redis_streams.lease_s",
            settings.redis_streams.lease_s,
        ),
        (
            "delivery.interest_beat_s",
            settings.delivery.interest_beat_s,
            "delivery.interest_lease_s",
            settings.delivery.interest_lease_s,
        ),
        ("cluster.heartbeat_s", settings.cluster.heartbeat_s, "cluster.lease_s", settings.cluster.lease_s),
        ("cluster.poll_s", settings.cluster.poll_s, "cluster.lease_s", settings.cluster.lease_s),
        ("gateway.route_renew_s", settings.gateway.route_renew_s, "gateway.route_ttl_s", settings.gateway.route_ttl_s),
        ("kafka.heartbeat_s", settings.kafka.heartbeat_s, "kafka.session_timeout_s", settings.kafka.session_timeout_s),
    )
    for renewal, renew_s, lease, lease_s in leases:
        if renew_s * RENEWALS_PER_LEASE > lease_s:
            raise ConfigError(
                f"{renewal} is {renew_s:g}; make it at most a third of {lease} ({lease_s:g}), "
                "so that one lost renewal does not stop the server."
            )
