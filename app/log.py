"""Logs: one JSON line per event in ECS fields (https://www.elastic.co/guide/en/ecs/current/), or coloured text for people.

Events are named in the past tense, ids are fields. Message text, passwords and tokens never belong into a log; what slips into a field of
one of the names below is masked.
"""

import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any, Literal, TextIO

import ecs_logging
import structlog

MASKED = frozenset(
    {"password", "token", "secret", "ticket", "authorization", "cookie", "body", "text", "csrf_token", "dsn", "url"}
)
MASK = "***"
CHAIN_MAX = 5
"""How deep causes are followed."""

ECS_NAMES = {
    "method": "http.request.method",
    "status": "http.response.status_code",
    "request_id": "http.request.id",
    "route": "url.path",
    "client_ip": "client.ip",
}
"""How ECS calls what our events name shortly; `ms` becomes `event.duration` in nanoseconds."""

Event = MutableMapping[str, Any]


def configure(
    level: Literal["debug", "info", "warning", "error"],
    form: Literal["auto", "json", "text"],
    stream: TextIO | None = None,
) -> None:
    """Route structlog and the standard library's logging to `stream` (stdout by default) in one form."""
    as_text = form == "text" or (form == "auto" and sys.stdout.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        mask_secrets,
    ]
    final: list[structlog.types.Processor]
    if as_text:
        # Plain tracebacks: the rich ones show local variables, and those hold message text.
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        final = [
            structlog.processors.TimeStamper("%H:%M:%S", utc=False),
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            renderer,
        ]
    else:
        final = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _failure, _ecs]
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # They log every request, connection or retry, some with addresses; our own events say the same.
    for noisy in ("asyncio", "aiohttp.access", "stamina", "grpc"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    # It calls every attempt to reach a cluster that is away an error, ten times a second.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _failure(logger: Any, name: str, event: Event) -> Event:  # noqa: ARG001 - structlog's signature
    """An exception becomes ECS `error` fields: what kind and where, never its message, which may quote what somebody wrote."""
    given = event.pop("exc_info", None)
    if given:
        error = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else sys.exception()
        if error is not None:
            event["error"] = {"type": type(error).__qualname__, "stack_trace": "".join(_trace(error))}
    return event


def _trace(error: BaseException, depth: int = 0) -> Iterator[str]:
    """Where it was raised, after the traces of what it came from or consists of."""
    inner = [error.__cause__ or (None if error.__suppress_context__ else error.__context__)]
    if isinstance(error, BaseExceptionGroup):
        inner += error.exceptions
    for one in inner:
        if one is not None and depth < CHAIN_MAX:
            yield from _trace(one, depth + 1)
    yield from traceback.format_tb(error.__traceback__)
    yield f"{type(error).__qualname__}\n"


def _ecs(logger: Any, name: str, event: Event) -> str:
    fields = {ECS_NAMES.get(key, key): value for key, value in event.items()}
    if "ms" in fields:
        fields["event.duration"] = round(fields.pop("ms") * 1_000_000)
    fields["service.name"] = "magpie"
    if isinstance(fields.get("error"), str):
        # An object everywhere: Elasticsearch refuses lines in which a field changes its type.
        fields["error"] = {"message": fields["error"]}
    fields["log"] = {"level": fields.pop("level"), "logger": fields.pop("logger")}
    return ecs_logging.StructlogFormatter()(logger, name, fields)


def mask_secrets(logger: Any, name: str, event: Event) -> Event:  # noqa: ARG001 - structlog's signature
    """Mask fields that must not be in a log."""
    for key in event:
        if key in MASKED:
            event[key] = MASK
    return event
