"""Prometheus metrics of one application. No label ever holds an id of a user, group or message."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

# From "one loop turn" to "the promise is broken", in seconds.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500)


class Metrics:
    """All collectors, on a registry of their own: two applications may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        ProcessCollector(registry=r)
        PlatformCollector(registry=r)
        GCCollector(registry=r)

        self.http_requests = Counter(
            "im_http_requests", "HTTP requests answered", ["method", "route", "status"], registry=r
        )
        self.http_seconds = Histogram(
            "im_http_seconds", "Time to answer an HTTP request", ["route"], buckets=SECONDS, registry=r
        )

        self.connections = Gauge("im_connections", "Open WebSocket connections", registry=r)
        self.connections_closed = Counter("im_connections_closed", "Closed WebSocket connections", ["code"], registry=r)
        self.connections_refused = Counter(
            "im_connections_refused", "Attempts to connect that were answered 503", ["reason"], registry=r
        )
        self.connections_drained = Counter(
            "im_connections_drained", "Connections asked to go, by cause", ["cause"], registry=r
        )
        self.frames_in = Counter("im_frames_in", "Frames received from clients", ["type"], registry=r)
        self.frame_errors = Counter("im_frame_errors", "Error frames sent", ["code"], registry=r)

        self.messages_in = Counter("im_messages_in", "Sends accepted into the log", registry=r)
        self.messages_stored = Counter("im_messages_stored", "Messages committed", registry=r)
        self.messages_repeated = Counter("im_messages_repeated", "Sends answered from an earlier commit", registry=r)
        self.messages_refused = Counter("im_messages_refused", "Sends answered with an error", ["code"], registry=r)
        self.messages_acked = Counter("im_messages_acked", "Answers of success handed to clients", registry=r)
        self.messages_delivered = Counter(
            "im_messages_delivered", "Messages written to sockets, one per receiver", registry=r
        )
        self.dead_letters = Counter(
            "im_dead_letters", "Sends put aside as dead letters, each try of their senders", registry=r
        )
        self.dead_letters_waiting = Gauge(
            "im_dead_letters_waiting", "Dead letters that nobody replayed or dropped, at the last look", registry=r
        )
        self.dead_letters_oldest_seconds = Gauge(
            "im_dead_letters_oldest_seconds", "Age of the oldest dead letter, 0 without one", registry=r
        )

        self.stage_seconds = Histogram(
            "im_stage_seconds", "Time per stage of a batch or a fan-out", ["stage"], buckets=SECONDS, registry=r
        )
        self.batch_size = Histogram("im_batch_size", "Sends per consumer batch", buckets=SIZES, registry=r)
        self.ack_seconds = Histogram(
            "im_ack_seconds", "From a send's arrival to its answer", buckets=SECONDS, registry=r
        )

        self.cluster_nodes = Gauge("im_cluster_nodes", "Gateways on the ring, as this process knows it", registry=r)
        self.cluster_ring = Gauge(
            "im_cluster_ring", "A number that processes have in common when they know the same ring", registry=r
        )
        self.registry_age_seconds = Gauge(
            "im_registry_age_seconds", "Since the registry was seen; 0 without one", registry=r
        )

        self.pending_sends = Gauge("im_pending_sends", "Sends waiting for their answer", registry=r)
        self.log_depth = Gauge(
            "im_log_depth", "Records that are not committed in the partitions of this process", registry=r
        )
        self.log_lag_seconds = Gauge("im_log_lag_seconds", "Age of the oldest record of the batch in work", registry=r)
        self.batches_dropped = Counter(
            "im_batches_dropped", "Batches given up because a partition had a new owner", registry=r
        )
        self.read_marks_pending = Gauge("im_read_marks_pending", "Read marks not yet written", registry=r)
        self.presence_waiting = Gauge(
            "im_presence_waiting", "Users who came online or went and of whom nobody was told yet", registry=r
        )
        self.search_behind = Gauge("im_search_behind", "Messages not indexed at the last look", registry=r)
        self.search_lag_seconds = Gauge(
            "im_search_lag_seconds", "Age of the oldest message of the last indexed batch", registry=r
        )
        self.search_indexed = Counter("im_search_indexed", "Messages brought into the search index", registry=r)
        self.limits_local = Counter("im_limits_local", "Rate limits decided without Redis", registry=r)
        self.loop_lag_seconds = Histogram(
            "im_loop_lag_seconds", "How late the event loop runs", buckets=SECONDS, registry=r
        )

        self.blobs_published = Counter("im_blobs_published", "Blobs published", ["channel"], registry=r)
        self.blobs_missed = Counter(
            "im_blobs_missed", "Numbers missing in a publisher's blobs", ["channel"], registry=r
        )
        self.delivery_bytes = Counter(
            "im_delivery_bytes", "Received from Redis on the way down: blobs and answers", ["channel"], registry=r
        )
        self.routes = Counter(
            "im_routes",
            "With delivery.group = routed: publications by whether they went to nodes or, and why, to all",
            ["way"],
            registry=r,
        )
        self.repairs = Counter("im_repairs", "Comparisons of all local groups with the store", ["cause"], registry=r)
        self.gaps_sent = Counter("im_gaps_sent", "Gap announcements, one per receiver", registry=r)
        self.push_calls = Counter(
            "im_push_calls", "Calls of gateways by gRPC with answers, by result", ["result"], registry=r
        )
        self.push_items = Histogram("im_push_items", "Answers per call by gRPC", buckets=SIZES, registry=r)
        self.push_seconds = Histogram("im_push_seconds", "Time of a call by gRPC", buckets=SECONDS, registry=r)
        self.push_fallbacks = Counter(
            "im_push_fallbacks", "Answers that went by Redis, though their gateway is registered for gRPC", registry=r
        )
        self.push_peers_away = Gauge(
            "im_push_peers_away", "Registered gateways that cannot be reached by gRPC now", registry=r
        )
        self.pushes_refused = Counter(
            "im_pushes_refused",
            "Calls by gRPC that were refused here: without the token, or for another",
            ["reason"],
            registry=r,
        )
        self.events_shed = Counter("im_events_shed", "Droppable events not delivered", registry=r)
        self.seq_repairs = Counter("im_seq_repairs", "Proposed sequence numbers that did not fit", registry=r)
        self.slow_consumers = Counter("im_slow_consumers", "Connections that stopped reading", registry=r)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage of the message path."""
        start = perf_counter()
        try:
            yield
        finally:
            self.stage_seconds.labels(name).observe(perf_counter() - start)

    async def watch_loop(self, interval_s: float = 0.5) -> None:
        """Measure how late the event loop wakes up; runs until cancelled."""
        while True:
            before = perf_counter()
            await asyncio.sleep(interval_s)
            self.loop_lag_seconds.observe(max(0.0, perf_counter() - before - interval_s))
