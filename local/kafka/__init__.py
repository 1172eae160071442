"""One real Kafka on this machine: a single JVM that is broker and controller, for tests, benchmarks and development."""

from local.kafka.server import KafkaServer
from local.kafka.settings import Listener

__all__ = ["KafkaServer", "Listener"]
