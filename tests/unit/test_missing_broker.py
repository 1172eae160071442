"""A broker that is not there when a process starts."""

import pytest

from app.brokers.kafka import KafkaBroker
from app.cli.stores import explained
from app.errors import ConfigError
from app.lifecycle import Readiness, Supervisor
from app.settings import load


async def test_the_operator_reads_which_kafka_cannot_be_reached() -> None:
    nowhere = load().kafka.model_copy(update={"bootstrap_servers": ("127.0.0.1:1",), "request_timeout_s": 1.0})
    broker = KafkaBroker(nowhere, Supervisor(pytest.fail), Readiness(), partitions=1, append_timeout_s=1)
    with pytest.raises(ConfigError, match=r"KafkaConnectionError.*127\.0\.0\.1"), explained():
        await broker.start()


def test_the_log_names_what_stands_behind_an_error(caplog: pytest.LogCaptureFixture) -> None:
    error = RuntimeError("away")
    error.__cause__ = OSError("refused by 10.0.0.1")
    Readiness().fail("log", "waiting", error)
    assert "refused by 10.0.0.1" in caplog.text


def test_in_production_a_process_waits_for_each_of_its_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = {"POSTGRES__DSN": "postgresql://u@db/m", "REDIS__URL": "redis://cache", "AUTH__SECRET": "k" * 32}
    for name, value in {"IM_ENV": "production", **{f"IM_{key}": value for key, value in stores.items()}}.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert {settings.postgres.startup_wait_s, settings.redis.startup_wait_s, settings.broker.startup_wait_s} == {120}
