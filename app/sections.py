"""The tables of the configuration, their types and bounds. Defaults and reasons stand in `config/default.toml`.

Durations carry their unit in the name, sizes are bytes, rates are per the unit in the name.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from app.sources import as_list
from app.values import each_once, etcd_prefix, gateway, host_and_port, network, node_id, origin, web_address, ws_address

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Wait = Annotated[float, Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A table of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Http(Section):
    """The public HTTP server."""

    host: str
    port: Port
    public_url: Annotated[str, AfterValidator(web_address)]
    allowed_origins: Annotated[tuple[str, ...], BeforeValidator(as_list)]
    trusted_proxies: Annotated[tuple[Annotated[str, AfterValidator(network)], ...], BeforeValidator(as_list)]
    keepalive_timeout_s: Seconds
    body_timeout_s: Seconds
    header_timeout_s: Seconds
    max_body_bytes: Count
    shutdown_timeout_s: Seconds
    backlog: Count
    web_folder: str


class Metrics(Section):
    """Health and metrics on a port of their own."""

    host: str
    port: Port
    probe_interval_s: Seconds
    probe_timeout_s: Seconds


class Postgres(Section):
    """The source of truth."""

    dsn: SecretStr
    pool_min: Count
    pool_max: Count
    connect_timeout_s: Seconds
    command_timeout_s: Seconds
    acquire_timeout_s: Seconds
    idle_in_transaction_s: Seconds
    startup_wait_s: Wait
    migration_timeout_s: Seconds


class Redis(Section):
    """Counters, caches, routes, tickets."""

    url: SecretStr
    pool_max: Count
    connect_timeout_s: Seconds
    command_timeout_s: Seconds
    startup_wait_s: Wait


class Embedded(Section):
    """PostgreSQL and Valkey from Python wheels, for a laptop."""

    start_timeout_s: Seconds
    postgres_max_connections: Count
    postgres_shared_buffers_mb: Count
    valkey_max_memory_mb: Count
    log_max_bytes: Count


class Broker(Section):
    """The log between gateway and consumer."""

    kind: Literal["memory", "redis_streams", "kafka"]
    partitions: Annotated[int, Field(ge=1, le=1024)]
    append_timeout_s: Seconds
    startup_wait_s: Wait
    memory_max_records: Count


class RedisStreams(Section):
    """The log as streams in Redis."""

    url: SecretStr
    pool_max: Count
    max_records: Annotated[int, Field(ge=1, le=500_000)]
    lease_s: Seconds
    renew_s: Seconds


class Kafka(Section):
    """The log as a topic of Kafka."""

    bootstrap_servers: Annotated[tuple[str, ...], BeforeValidator(as_list)]
    topic: str
    group: str
    create_topic: bool
    replication: Count
    min_insync_replicas: Count
    retention_s: Count
    session_timeout_s: Seconds
    heartbeat_s: Seconds
    stall_s: Seconds
    request_timeout_s: Seconds
    probe_s: Seconds
    max_batch_bytes: Count
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    ssl_ca_file: str
    ssl_cert_file: str
    ssl_key_file: str
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    sasl_username: str
    sasl_password: SecretStr


class Delivery(Section):
    """From the consumer down to the gateways."""

    kind: Literal["memory", "redis_pubsub"]
    group: Literal["broadcast", "routed"]
    interest_beat_s: Seconds
    interest_lease_s: Seconds
    interest_linger_s: Annotated[float, Field(ge=10, le=200)]
    max_blob_bytes: Count
    heads_interval_s: Seconds
    heads_active_s: Seconds
    max_tracked_groups: Count
    reconnect_max_s: Seconds
    cut_compare_s: Annotated[float, Field(gt=0, le=10)]


class Cluster(Section):
    """Which gateways there are, and who belongs to which."""

    registry: Literal["", "redis", "etcd"]
    lease_s: Annotated[float, Field(ge=1)]
    heartbeat_s: Seconds
    poll_s: Seconds
    timeout_s: Seconds
    startup_wait_s: Wait
    virtual_nodes: Annotated[int, Field(ge=1, le=4096)]
    move_users: bool
    move_settle_s: Wait
    move_over_s: Wait
    isolated_drain_s: Wait


class Grpc(Section):
    """Calls between processes: answers to a gateway's sends, and what gateways ask each other."""

    enabled: bool
    answers: bool
    host: str
    port: Port
    token: SecretStr
    tls: Literal["off", "on", "mutual"]
    ca_file: str
    cert_file: str
    key_file: str
    deadline_ms: Annotated[int, Field(ge=1, le=5000)]
    retry_min_s: Seconds
    retry_max_s: Seconds
    keepalive_s: Annotated[float, Field(ge=1)]
    max_message_bytes: Annotated[int, Field(ge=65536)]
    waiting_max: Count
    concurrent_max: Count


class Etcd(Section):
    """The registry in etcd."""

    endpoints: Annotated[
        tuple[Annotated[str, AfterValidator(web_address)], ...], BeforeValidator(as_list), Field(min_length=1)
    ]
    prefix: Annotated[str, AfterValidator(etcd_prefix)]
    username: str
    password: SecretStr
    ca_file: str
    cert_file: str
    key_file: str


class Auth(Section):
    """Passwords, tokens, sessions."""

    secret: SecretStr
    token_ttl_s: Count
    ticket_ttl_s: Count
    bcrypt_rounds: Annotated[int, Field(ge=4, le=16)]
    bcrypt_threads: Count
    bcrypt_max_waiting: Count
    session_cache_s: Seconds
    session_cache_max: Count


class Limits(Section):
    """Token buckets; the burst is the minute's number."""

    register_per_minute: Count
    login_per_minute: Count
    send_per_minute: Count
    api_per_minute: Count
    frames_per_second: Count
    local_buckets_max: Count
    redis_timeout_s: Seconds
    redis_retry_s: Seconds
    batch_max: Count
    linger_ms: Annotated[float, Field(ge=0)]
    waiting_max: Count


class Groups(Section):
    """Bounds of groups."""

    max_members: Count
    max_groups_per_user: Count
    invite_ttl_s: Count
    page_max: Annotated[int, Field(ge=1, le=1000)]


class Messages(Section):
    """Bounds of messages and of reading them back."""

    max_code_points: Count
    send_timeout_s: Seconds
    hot_size: Count
    hot_ttl_s: Count
    history_page_max: Annotated[int, Field(ge=1, le=100)]
    sync_items_max: Count
    resume_items_max: Count
    resume_bytes_max: Count
    read_flush_s: Seconds
    read_pending_max: Count


class Search(Section):
    """Search in messages, and the index behind it."""

    index: bool
    index_interval_s: Seconds
    index_look_share: Annotated[float, Field(gt=0, le=1)]
    index_share: Annotated[float, Field(gt=0, le=1)]
    index_groups_max: Count
    index_batch_max: Count
    index_backoff_max_s: Seconds
    block_messages: Count
    block_words: Count
    query_code_points: Count
    query_parts: Count
    page_max: Annotated[int, Field(ge=1, le=50)]
    snippet_code_points: Count
    highlights_max: Count
    tail_max: Count
    looked_max: Count
    blocks_max: Count
    blocks_first: Count
    blocks_at_once: Count
    at_once: Count
    waiting_max: Count
    waiting_per_user: Count


class Producer(Section):
    """Un-acked sends; beyond a bound a send is answered `busy`."""

    per_connection: Count
    per_partition: Count
    total: Count
    pace_ms: Annotated[float, Field(ge=0, le=1000)]
    batch_max: Count


class Lookups(Section):
    """Questions that many connections and requests ask at once: is a session valid, which groups has a user."""

    linger_ms: Annotated[float, Field(ge=0)]
    batch_max: Count
    waiting_max: Count


class Consumer(Section):
    """Batches from the log to the store."""

    batch_max: Count
    pace_ms: Annotated[float, Field(ge=0, le=1000)]
    watch_s: Seconds
    backoff_min_s: Seconds
    backoff_max_s: Seconds


class Gateway(Section):
    """WebSocket connections and fan-out."""

    node_id: Annotated[str, AfterValidator(node_id)]
    public_ws_url: Annotated[str, AfterValidator(ws_address)]
    grpc_address: Annotated[str, AfterValidator(host_and_port)]
    weight: Annotated[int, Field(ge=1, le=16)]
    origins: Annotated[tuple[Annotated[str, AfterValidator(origin)], ...], BeforeValidator(as_list)]
    nodes: Annotated[
        tuple[Annotated[str, AfterValidator(gateway)], ...], BeforeValidator(as_list), AfterValidator(each_once)
    ]
    max_connections: Count
    connections_per_user: Count
    devices: Literal["all", "newest"]
    route_ttl_s: Annotated[float, Field(ge=1)]
    route_renew_s: Seconds
    connections_per_ip: Count
    connections_per_ip_except: Annotated[tuple[Annotated[str, AfterValidator(network)], ...], BeforeValidator(as_list)]
    admission_per_second: Count
    admission_burst: Count
    admission_user_per_second: Count
    admission_user_burst: Count
    max_frame_bytes: Count
    heartbeat_s: Seconds
    sweep_interval_s: Seconds
    window_ms: Count
    window_max_ms: Count
    window_max_items: Count
    buffer_bytes: Count
    slow_close_s: Seconds
    close_timeout_s: Seconds
    drain_s: Wait
    drain_answers_s: Wait
    drain_retry_ms: Count
    large_group_members: Count
    held_frames_max: Count
    pull_within_ms: Count
    resume_groups_max: Count
    backoff_base_ms: Count
    backoff_max_ms: Count
    backoff_jitter: Annotated[float, Field(ge=0, le=1)]

    @property
    def ws_urls(self) -> dict[str, str]:
        """`nodes` as node id → URL for clients."""
        return dict(node.split("=", 1) for node in self.nodes)


class Presence(Section):
    """Who is online, told to people who share a group."""

    enabled: bool
    small_group_members: Annotated[int, Field(ge=2, le=200)]
    grace_s: Seconds
    sweep_s: Annotated[float, Field(gt=0, le=10)]
    announced_per_second: Count
    frames_per_second: Count
    count_s: Seconds


class Moderation(Section):
    """The word filter."""

    words_file: str
    mode: Literal["reject", "mask"]
    reload_s: Seconds
    file_max_bytes: Count


class Ids(Section):
    """Snowflake ids and the worker lease."""

    lease_s: Seconds
    renew_s: Seconds
    max_backward_ms: Count


class Log(Section):
    """Logs: one JSON line per event, or coloured text for people."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["auto", "json", "text"]


class Collector(Section):
    """Python's cyclic garbage collector."""

    thresholds: Annotated[tuple[Count, Count, Count], BeforeValidator(as_list)]


class Testing(Section):
    """Only for tests; refused outside `IM_ENV = test`."""

    crash_point: str
