"""What lets a test skip on a machine that lacks something."""

from pathlib import Path

import pytest

from app.errors import ConfigError
from app.storage.embedded.launch import DoesNotRun
from tests.services import need_kafka, server_folder


def test_only_servers_that_do_not_run_are_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such program"), server_folder():
        raise DoesNotRun("no such program")
    with pytest.raises(ConfigError, match="Unknown setting"), server_folder():
        raise ConfigError("Unknown setting")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(DoesNotRun), server_folder():
        raise DoesNotRun("no such program")


async def test_without_java_what_needs_kafka_skips_but_not_in_ci(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="install it or set JAVA_HOME"):
        await need_kafka()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(ConfigError):
        await need_kafka()
