"""How the server is set up: small, quick to start, one machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HEAP = "-Xmx512m"
# Starts in half the time: little code becomes hot enough for the better compiler, and one core does not gain from a parallel collector.
JVM = (HEAP, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.awt.headless=true")

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    # One machine: no copies, and few files, which cost time at every start.
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # A group begins at once instead of waiting 3 s for more members; tests also use sessions below Kafka's usual least of 6 s.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    # As in production, where only the application makes its topic, with its own settings.
    "auto.create.topics.enable": "false",
    # Few threads for few cores; with a process that is killed and started again these are quick to recover.
    "num.network.threads": "2",
    "num.io.threads": "2",
    "background.threads": "2",
    "num.recovery.threads.per.data.dir": "2",
    "log.cleaner.threads": "1",
    # The controller notices within this time that a killed broker is back; usually 9 s.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
}


@dataclass(frozen=True)
class Listener:
    """One more door beside the plain one: `protocol` as Kafka names it, `settings` without their prefix."""

    protocol: str
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)


def properties(data: Path, port: int, controller_port: int, beside: Listener | None = None) -> str:
    """The text of `server.properties`."""
    doors, protocols = f"PLAINTEXT://127.0.0.1:{port}", SETTINGS["listener.security.protocol.map"]
    more = {}
    if beside is not None:
        doors += f",BESIDE://127.0.0.1:{beside.port}"
        protocols += f",BESIDE:{beside.protocol}"
        more = {f"listener.name.beside.{name}": value for name, value in beside.settings.items()}
    addresses = {
        "listeners": f"{doors},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": doors,
        "listener.security.protocol.map": protocols,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "log.dirs": str(data),
    }
    return "".join(f"{name}={value}\n" for name, value in (SETTINGS | addresses | more).items())
