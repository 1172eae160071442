"""`run.py cluster status` on real stores: what it shows, and what it calls wrong."""

import asyncio
import io
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest
from rich.console import Console

from app import __version__
from app.cli.beside import looking
from app.cli.cluster_status import EXIT_WRONG, Status, look, status
from app.cli.show_cluster import show
from app.cluster.base import Registry
from app.cluster.registries import registry_of
from app.errors import ConfigError
from app.parts import Parts
from app.settings import ROOT, Settings
from app.storage.postgres import Postgres
from app.storage.redis import Redis, connect
from app.storage.worker_leases import WorkerLeaseRepository
from tests.contract.pushing import Gateway, serving
from tests.contract.registries import etcd_options, node
from tests.running import settings_for
from tests.services import etcd

SECRET = "k" * 32
CLOSED = "127.0.0.1:9"
NOBODY = f"http://{CLOSED}"
LEASE_S, SLOW_S = 60, 15.0


@pytest.fixture(params=["redis", pytest.param("etcd", marks=pytest.mark.xdist_group("etcd"))])
async def settings(request: pytest.FixtureRequest, dsn: str, redis_url: str) -> Settings:
    endpoints = etcd_options(await etcd.running()).endpoints if request.param == "etcd" else (NOBODY,)
    return settings_for(
        dsn,
        redis_url,
        broker={"kind": "redis_streams", "partitions": 8},
        delivery={"kind": "redis_pubsub"},
        cluster={"registry": request.param, "timeout_s": SLOW_S, "lease_s": LEASE_S},
        etcd={"endpoints": endpoints, "prefix": "status/"},
    )


def connection(settings: Settings, size: int) -> Redis:
    url = settings.redis.url.get_secret_value()
    return connect(url, pool_max=size, connect_timeout_s=SLOW_S, command_timeout_s=SLOW_S)


@pytest.fixture
async def registries(settings: Settings) -> AsyncIterator[list[Registry]]:
    """As two gateways have it."""
    client = connection(settings, 1)
    await client.flushdb()
    await client.aclose()
    made = [registry for _ in range(2) if (registry := registry_of(settings, lambda n: connection(settings, n)))]
    for registry in made:
        await registry.start()
    yield made
    for registry in made:
        await registry.stop()


@pytest.fixture
async def processes(settings: Settings) -> AsyncIterator[Postgres]:
    """Two gateways, an api and a consumer that hold worker ids, and a consumer that was killed. The other is at two partitions."""
    postgres = Parts(settings, lambda _: None).postgres
    await postgres.start()
    table = WorkerLeaseRepository(postgres)
    for name in ("gateway:g1", "gateway:g2", "api:api1", "consumer:c1"):
        await table.take(f"{name}:{__version__}:random", settings.ids.lease_s)
    await table.take("consumer:c2:0.0.1:random", 1.5)
    await table.take("consumer:c1:0.0.1:earlier", 1.5)
    await postgres.execute(
        "INSERT INTO partition_owner (broker, partition, epoch, owner) VALUES ($1, 0, 1, 'c1'), ($1, 1, 1, 'c1'), ($1, 5, 1, 'c2')",
        "redis_streams",
    )
    yield postgres
    await postgres.stop(5)


async def test_a_cluster_as_it_goes_down(settings: Settings, registries: list[Registry], processes: Postgres) -> None:
    first, second = Gateway("g1", secret=SECRET), Gateway("g2", secret=SECRET)
    async with AsyncExitStack() as stack:
        for gateway in (first, second):
            await stack.enter_async_context(serving(gateway))
        addresses = [gateway.node().grpc_address for gateway in (first, second)]
        nodes = [
            node("g1", "b", version=__version__, weight=3, grpc_address=addresses[0]),
            node("g2", "b", version="0.0.2", grpc_address=addresses[1]),
        ]
        for registry, each in zip(registries, nodes, strict=True):
            await registry.renew(each)

        found = await look(settings, may_ask=True)
        assert (found.wrong, found.registry, found.registry_answers) == ([], settings.cluster.registry, True)
        g1, g2 = found.gateways
        assert (g1.node_id, g1.answers, g1.sees_registry, g1.connections) == ("g1", True, True, 7)
        assert g1.share + g2.share == pytest.approx(1, abs=0.001)
        assert g1.share == pytest.approx(0.75, abs=0.05)
        assert g1.lease_s is not None
        assert 0 < g1.lease_s <= LEASE_S
        assert [(each.role, each.name, each.version, each.alive) for each in found.processes] == [
            ("api", "api1", __version__, True),
            ("consumer", "c1", __version__, True),
            ("consumer", "c2", "0.0.1", False),
            ("gateway", "g1", __version__, True),
            ("gateway", "g2", __version__, True),
        ]
        assert [each.owner for each in found.partitions] == ["c1", "c1", "", "", "", "c2", "", ""]
        assert found.notes == [
            f"Versions differ: 0.0.1, 0.0.2, {__version__}. That is as it should be only during an upgrade."
        ]

        # A record waits where the killed consumer was, a gateway froze, another drains.
        client = connection(settings, 1)
        await client.xadd("Log:{5}", {"v": b"x"})
        await client.aclose()
        await second.server.stop(0)
        await registries[0].renew(node("g1", "b", state="draining", grpc_address=addresses[0]))
        text = shown(await look(settings, may_ask=True))
        for line in (
            "c2 (gone)",
            "silent",
            "draining",
            "Gateway g2 does not answer at 127.0.0.1:",
            "Messages wait in 1 partitions",
        ):
            assert line in text

    for registry, each in zip(registries, nodes, strict=True):
        await registry.leave(each)
    found = await look(settings, may_ask=True)
    assert found.gateways == []
    assert wrong(found) == [
        "Gateway g1 is not in the registry",
        "Gateway g2 is not in the registry",
        "Messages wait in 1 partitions that no live consumer owns",
        "No gateway in the registry is up",
    ]


async def test_without_anybody(settings: Settings, registries: list[Registry]) -> None:
    found = await look(settings, may_ask=True)
    assert wrong(found) == ["No gateway in the registry is up", "There is no api", "There is no consumer"]


async def test_a_registry_that_is_away(dsn: str, redis_url: str) -> None:
    settings = settings_for(dsn, redis_url, cluster={"registry": "etcd"}, etcd={"endpoints": (NOBODY,)})
    found = await look(settings, may_ask=True)
    assert "The registry (etcd) does not answer" in wrong(found)
    assert "etcd, does not answer" in shown(found)


@pytest.mark.may_block
@pytest.mark.parametrize("broker", ["memory", "redis_streams"])
@pytest.mark.parametrize("registry", ["", "redis"])
async def test_redis_that_is_away_is_wrong(
    dsn: str, registry: str, broker: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(dsn, f"redis://{CLOSED}", cluster={"registry": registry}, broker={"kind": broker})
    assert await status(settings, as_json=True) == EXIT_WRONG
    said = json.loads(capsys.readouterr().out)
    assert said["wrong"][0].startswith(f"Redis at {CLOSED} cannot be reached")
    assert said["wrong"][0].endswith("start it or correct IM_REDIS__URL.")
    assert said["registry_answers"] == (False if registry else None)


@pytest.mark.may_block
async def test_postgresql_that_refuses_is_one_sentence(dsn: str, redis_url: str) -> None:
    admin = await asyncpg.connect(dsn)
    await admin.execute("CREATE ROLE reader LOGIN")
    try:
        settings = settings_for(dsn.replace("magpie@", "reader@"), redis_url)
        with pytest.raises(ConfigError, match="permission denied for table schema_migrations"):
            await status(settings, as_json=True)
        await admin.execute("GRANT SELECT ON schema_migrations TO reader")
        with pytest.raises(ConfigError, match="permission denied for table worker_leases"):
            await status(settings, as_json=True)
    finally:
        await admin.execute("REVOKE ALL ON schema_migrations FROM reader; DROP ROLE reader")
        await admin.close()
    with pytest.raises(ConfigError, match="It could not be done: the database is not available; try again"):
        async with looking(settings_for(f"postgresql://im@{CLOSED}/im", redis_url)):
            pass


async def test_the_command_without_a_registry(dsn: str, redis_url: str) -> None:
    stores = {"IM_POSTGRES__DSN": dsn, "IM_REDIS__URL": redis_url}
    for options in ([], ["--json"]):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "run.py"),
            "cluster",
            "status",
            *options,
            env={**os.environ, **stores},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert process.returncode == EXIT_WRONG
        if options:
            said = json.loads(out)
            assert (said["ok"], said["registry"], said["gateways"]) == (False, "", [])
        else:
            assert "set IM_CLUSTER__REGISTRY=redis or etcd" in out.decode()
            assert "There is no gateway: nobody can connect." in out.decode()


def shown(found: Status) -> str:
    """As people see it."""
    text = io.StringIO()
    show(found, Console(file=text, width=200))
    return text.getvalue()


def wrong(found: Status) -> list[str]:
    """What is wrong, without what to do about it."""
    return sorted(re.split(r"[:.]", each)[0] for each in found.wrong)
