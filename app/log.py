"""Logs: one JSON line per event in ECS fields (https://www.elastic.co/guide/en/ecs/current/), or coloured text for people.

Events are named in the past tense, ids are fields. Message text, passwords and tokens never belong into a log; what slips into a field of
one of the names below is masked.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import ecs_logging
import structlog

MASKED = frozenset(
    {"password", "token", "secret", "ticket", "authorization", "cookie", "body", "text", "csrf_token", "dsn", "url"}
)
MASK = "***"

Event = MutableMapping[str, Any]


def configure(level: Literal["debug", "info", "warning", "error"], form: Literal["auto", "json", "text"]) -> None:
    """Route structlog and the standard library's logging to stdout in one form."""
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
        final = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _ecs]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # They log every request, connection or retry, some with addresses; our own events say the same.
    for noisy in ("asyncio", "aiohttp.access", "stamina"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _ecs(logger: Any, name: str, event: Event) -> str:
    return ecs_logging.StructlogFormatter()(logger, name, dict(event))


def mask_secrets(logger: Any, name: str, event: Event) -> Event:  # noqa: ARG001 - structlog's signature
    """Mask fields that must not be in a log."""
    for key in event:
        if key in MASKED:
            event[key] = MASK
    return event
