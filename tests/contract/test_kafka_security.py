"""Kafka behind TLS and a password: the settings reach every client, and what does not fit is refused."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from app.brokers.kafka import KafkaBroker
from app.errors import Busy, ConfigError
from app.lifecycle import Readiness, Supervisor
from app.sections import Kafka
from tests.contract.logs import PARTITIONS, Ownership, kafka_brokers, kafka_options
from tests.contract.streams import until_read
from tests.services import kafka

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.timeout(150)]


@pytest.fixture(autouse=True)
async def farewells() -> AsyncIterator[None]:
    """Waits for the server's part of each TLS farewell: aiokafka does not where it was refused, and the test's loop would end first."""
    yield
    transports = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]  # aiokafka keeps no hold of them either
    while any(transport.get_extra_info("socket").fileno() >= 0 for transport in list(transports.values())):
        await asyncio.sleep(0.01)


async def _options(**changed: object) -> Kafka:
    server = await kafka.running()
    certificate, key, _ = server.authority.issue("client")
    return await kafka_options(
        **{
            "bootstrap_servers": [server.secure_address],
            "security_protocol": "SASL_SSL",
            "ssl_ca_file": str(server.authority.file),
            "ssl_cert_file": str(certificate),
            "ssl_key_file": str(key),
            "sasl_mechanism": "PLAIN",
            "sasl_username": server.user,
            "sasl_password": server.password,
        }
        | changed
    )


async def test_everything_works_behind_tls_and_a_password() -> None:
    async with kafka_brokers(await _options()) as connect:
        broker = await connect()
        subscription = await broker.subscribe(Ownership())
        await broker.append(1, [b"secret"])
        await until_read(subscription, b"secret")
        await subscription.commit({1: 0})
        assert set((await broker.backlog()).values()) == {0}
        await subscription.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"sasl_password": "wrong"},
        {"ssl_ca_file": ""},
        {"ssl_cert_file": "", "ssl_key_file": ""},
        {"security_protocol": "SASL_PLAINTEXT", "ssl_ca_file": "", "ssl_cert_file": "", "ssl_key_file": ""},
    ],
    ids=["password", "authority", "no certificate", "no TLS"],
)
async def test_who_may_not_in_stays_out(wrong: Mapping[str, object]) -> None:
    broker = KafkaBroker(
        await _options(**wrong), Supervisor(lambda _: None), Readiness(), partitions=PARTITIONS, append_timeout_s=1
    )
    with pytest.raises(Busy):
        await broker.start()
    await broker.stop()


async def test_a_certificate_that_cannot_be_read_is_named() -> None:
    options = await _options(ssl_ca_file="/nowhere/ca.pem")
    broker = KafkaBroker(options, Supervisor(lambda _: None), Readiness(), partitions=PARTITIONS, append_timeout_s=1)
    with pytest.raises(ConfigError, match=r"A certificate of kafka\.ssl_\* cannot be used"):
        await broker.start()
