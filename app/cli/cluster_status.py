"""`run.py cluster status`: who is there, from the registry, PostgreSQL, the broker, and the gateways themselves."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from rich.console import Console

from app.cli.attach import existing_stores
from app.cli.beside import looking
from app.cli.output import answers
from app.cli.progress import Progress
from app.cli.show_cluster import show
from app.cluster.base import Node, Registry
from app.cluster.registries import registry_of
from app.cluster.ring import Ring
from app.consumer.fence import owners
from app.errors import Busy
from app.parts import Parts
from app.settings import Settings
from app.storage.reach import Unreachable, reach_redis
from app.storage.redis import connect
from app.storage.worker_leases import WorkerLeaseRepository

EXIT_FINE, EXIT_WRONG = 0, 1
TRIES = 2
"""Of the registry: the first may find an endpoint that is away."""
SILENT_RENEWALS = 3
"""Who has missed so many renewals of its worker id is counted as gone."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One in the registry. What only itself knows is None where it does not answer."""

    node_id: str
    state: str
    version: str
    boot_id: str
    weight: int
    share: float
    """Part of all users that are sent there."""
    lease_s: float | None
    """Until it is gone if it does not renew."""
    ws_url: str
    grpc_address: str
    answers: bool | None
    """None: it was not asked."""
    sees_registry: bool | None = None
    connections: int | None = None
    uptime_s: float | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """One that holds a worker id, of any role."""

    role: str
    name: str
    version: str
    seen_s: float
    """Since it last renewed it."""
    alive: bool


@dataclass(frozen=True, slots=True)
class Partition:
    """One of the log."""

    partition: int
    owner: str
    owner_alive: bool
    waiting: int | None


@dataclass(slots=True)
class Status:
    """Everything that is shown. `registry` is its kind, empty without one; `registry_answers` is None then."""

    registry: str
    registry_answers: bool | None = None
    gateways: list[Gateway] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    broker: str = ""
    partitions: list[Partition] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def status(settings: Settings, *, as_json: bool) -> int:
    """Look at the cluster of these settings, print it, return the exit code. Raises ConfigError when PostgreSQL cannot be read."""
    errors = Console(stderr=True)
    with Progress(errors) as progress:
        on_step = progress.step if errors.is_terminal else lambda _: None
        async with existing_stores(settings, on_step, need_redis=False) as reached:
            away = await _redis_away(reached)
            found = await look(reached, may_ask=_has_token(settings))
    found.wrong[:0] = away
    if as_json:
        sys.stdout.write(json.dumps({"ok": not found.wrong, **asdict(found)}, indent=2, ensure_ascii=False) + "\n")
    else:
        show(found, answers())
    return EXIT_WRONG if found.wrong else EXIT_FINE


async def look(settings: Settings, *, may_ask: bool) -> Status:
    """Ask everybody once. `may_ask`: we have the token that gateways want. Raises ConfigError when PostgreSQL does not let us look."""
    found = Status(settings.cluster.registry)
    async with looking(settings) as parts:
        found.processes = _processes(await WorkerLeaseRepository(parts.postgres).holders(), settings)
        await _look_at_gateways(found, parts, may_ask=may_ask)
        await _look_at_log(found, parts)
    versions = [process.version for process in found.processes] + [gateway.version for gateway in found.gateways]
    found.versions = sorted(set(filter(None, versions)))
    _judge(found)
    return found


def _has_token(settings: Settings) -> bool:
    return bool(settings.auth.secret.get_secret_value() or settings.grpc.token.get_secret_value())


def _processes(holders: Sequence[tuple[str, float]], settings: Settings) -> list[Process]:
    """Who was started again holds two worker ids for a while: the newer counts."""
    found: dict[tuple[str, str], Process] = {}
    for holder, left_s in sorted(holders, key=lambda each: each[1]):
        parts = holder.split(":")
        # Earlier releases name host and process only.
        role, name, version = parts[:3] if len(parts) == 4 else ("?", ":".join(parts[:2]), "")
        seen_s = max(0.0, settings.ids.lease_s - left_s)
        alive = seen_s < SILENT_RENEWALS * settings.ids.renew_s
        found[role, name] = Process(role, name, version, round(seen_s, 1), alive)
    return [found[key] for key in sorted(found)]


async def _redis_away(settings: Settings) -> list[str]:
    """What to do about it, if it is. Raises ConfigError when it is there and we may not use it."""
    url, timeout_s = settings.redis.url.get_secret_value(), settings.redis.connect_timeout_s
    try:
        await reach_redis(url, wait_s=0, connect_timeout_s=timeout_s, on_step=lambda _: None)
    except Unreachable as error:
        return [str(error)]
    return []


async def _look_at_gateways(found: Status, parts: Parts, *, may_ask: bool) -> None:
    settings = parts.settings
    url, o = settings.redis.url.get_secret_value(), settings.redis
    registry = registry_of(
        settings,
        lambda size: connect(
            url, pool_max=size, connect_timeout_s=o.connect_timeout_s, command_timeout_s=o.command_timeout_s
        ),
    )
    if registry is None:
        return
    try:
        nodes, leases = await _read(registry)
    except Busy:
        found.registry_answers = False
        return
    finally:
        await registry.stop()
    found.registry_answers = True
    shares = Ring(nodes, settings.cluster.virtual_nodes).shares()
    asked = [node for node in nodes if node.grpc_address]
    states = dict(zip(asked, await parts.grpc.peers().states(asked), strict=True)) if parts.grpc and may_ask else {}
    if asked and not states:
        found.notes.append("Gateways were not asked: grpc.enabled is off here, or auth.secret is not set.")
    for node in nodes:
        state = states.get(node)
        found.gateways.append(
            Gateway(
                node.node_id,
                node.state,
                node.version,
                node.boot_id,
                node.weight,
                round(shares.get(node.node_id, 0.0), 4),
                leases.get(node.node_id),
                node.ws_url,
                node.grpc_address,
                None if node not in states else state is not None,
                *((state.sees, state.connections, round(state.uptime_s, 1)) if state else ()),
            )
        )


async def _read(registry: Registry) -> tuple[Sequence[Node], Mapping[str, float]]:
    for tries_left in reversed(range(TRIES)):
        try:
            await registry.start()
            return (await registry.read()).nodes, await registry.leases()
        except Busy:
            if not tries_left:
                raise
    raise AssertionError


async def _look_at_log(found: Status, parts: Parts) -> None:
    broker = parts.broker
    found.broker = broker.name
    if not broker.durable:
        found.notes.append("The log is in the memory of the server's process; see im_log_depth on its /metrics.")
        return
    waiting: Mapping[int, int] = {}
    try:
        await broker.start()
        waiting = await broker.backlog()
    except Busy:
        found.wrong.append("The broker does not answer; sends are refused until it does.")
    finally:
        await broker.stop()
    alive = {process.name for process in found.processes if process.alive}
    owned = await owners(parts.postgres, broker.name)
    for number in range(broker.partitions):
        owner = owned.get(number, "")
        found.partitions.append(Partition(number, owner, owner in alive, waiting.get(number)))


def _judge(found: Status) -> None:
    alive = [process for process in found.processes if process.alive]
    by_role = {role: [process.name for process in alive if process.role == role] for role in ("all", "api", "consumer")}
    for role, harm in (("api", "nobody can log in"), ("consumer", "messages wait in the log")):
        if not by_role[role] and not by_role["all"] and not any(process.role == "?" for process in alive):
            found.wrong.append(f"There is no {role}: {harm}.")
    gateways = {process.name for process in alive if process.role in ("all", "gateway")}
    if found.registry_answers is False:
        found.wrong.append(
            f"The registry ({found.registry}) does not answer: gateways take no new connections until it does, and keep those they have."
        )
    elif found.registry:
        _judge_registered(found, gateways)
    elif not gateways and not any(process.role == "?" for process in alive):
        found.wrong.append("There is no gateway: nobody can connect.")
    stuck = [each for each in found.partitions if each.waiting and not each.owner_alive]
    if stuck:
        found.wrong.append(f"Messages wait in {len(stuck)} partitions that no live consumer owns.")
    if len(found.versions) > 1:
        found.notes.append(
            f"Versions differ: {', '.join(found.versions)}. That is as it should be only during an upgrade."
        )


def _judge_registered(found: Status, alive: set[str]) -> None:
    if not any(gateway.state == "up" for gateway in found.gateways):
        found.wrong.append("No gateway in the registry is up: nobody can connect. Start one, and look at its /readyz.")
    for gateway in found.gateways:
        if gateway.answers is False:
            found.wrong.append(
                f"Gateway {gateway.node_id} does not answer at {gateway.grpc_address}: it ended or froze, has another auth.secret, or "
                "cannot be reached from here."
            )
        if gateway.sees_registry is False:
            found.wrong.append(f"Gateway {gateway.node_id} does not see the registry: it takes no new connections.")
    missing = alive - {gateway.node_id for gateway in found.gateways}
    found.wrong.extend(
        f"Gateway {name} is not in the registry: it ended in the last seconds, or look at its /readyz."
        for name in sorted(missing)
    )
