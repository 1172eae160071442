"""One real Kafka on this machine: a single JVM that is broker and controller, for tests, benchmarks and development."""

from local.kafka.server import KafkaServer

__all__ = ["KafkaServer"]
