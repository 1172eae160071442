"""What a line of the JSON log holds when something failed."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.log import configure


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, known = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**known)


def fail() -> None:
    message = "a private sentence"
    try:
        raise KeyError(message)
    except KeyError as error:
        raise ExceptionGroup(message, [ValueError(message)]) from error


def test_a_failure_says_what_and_where_and_quotes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    try:
        fail()
    except ExceptionGroup:
        structlog.get_logger("app.somewhere").exception("it_failed", password="pw", group_id=7)
    text = capsys.readouterr().out
    line = json.loads(text)
    assert line["message"] == "it_failed"
    assert line["log.level"] == "error"
    assert line["error"]["type"] == "ExceptionGroup"
    assert line["log"]["logger"] == "app.somewhere"
    trace = line["error"]["stack_trace"]
    assert "in fail" in trace
    assert [name for name in trace.splitlines() if name[0] != " "] == ["KeyError", "ValueError", "ExceptionGroup"]
    assert "a private sentence" not in text
    assert '"pw"' not in text


def test_a_library_s_failure_is_logged_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    try:
        fail()
    except ExceptionGroup:
        logging.getLogger("a.library").exception("failed for %s", "me")
    line = json.loads(capsys.readouterr().out)
    assert line["message"] == "failed for me"
    assert line["error"]["type"] == "ExceptionGroup"


def test_fields_have_the_names_and_types_of_ecs(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    log = structlog.get_logger("app.somewhere")
    log.info("request_answered", method="GET", status=200, ms=1.5, route="/livez", client_ip="::1", request_id="r")
    log.warning("store_away", error="ConnectionRefusedError")
    answered, away = map(json.loads, capsys.readouterr().out.splitlines())
    assert answered["http"] == {"request": {"method": "GET", "id": "r"}, "response": {"status_code": 200}}
    assert answered["event"] == {"duration": 1_500_000}
    assert (answered["url"], answered["client"]) == ({"path": "/livez"}, {"ip": "::1"})
    assert answered["service"] == {"name": "magpie"}
    assert "ms" not in answered
    assert away["error"] == {"message": "ConnectionRefusedError"}
