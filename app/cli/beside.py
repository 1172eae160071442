"""The objects of a process for commands that look at what runs, beside it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

from app.cli.stores import explained
from app.parts import Parts
from app.settings import Settings

STOP_S = 5.0
NOTHING: Mapping[str, Mapping[str, object]] = MappingProxyType({})


@asynccontextmanager
async def looking(settings: Settings, changed: Mapping[str, Mapping[str, object]] = NOTHING) -> AsyncIterator[Parts]:
    """Only PostgreSQL is started, with few connections, and looking makes nothing. `changed` are more settings, by section.

    Raises ConfigError with one sentence, also for what the block cannot do.
    """
    few: Mapping[str, Mapping[str, object]] = {
        "postgres": {"pool_min": 1, "pool_max": 2},
        "kafka": {"create_topic": False},
        "redis": {"pool_max": 2},
    }
    sections = {
        name: getattr(settings, name).model_copy(update={**options, **changed.get(name, {})})
        for name, options in few.items()
    }
    parts = Parts(settings.model_copy(update=sections), lambda _: None)
    with explained("It could not be done"):
        await parts.postgres.start()
        try:
            yield parts
        finally:
            await parts.supervisor.stop(STOP_S)
            await parts.redis.aclose()
            await parts.postgres.stop(STOP_S)
