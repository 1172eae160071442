"""The API's description, printed without serving it."""

import json

from app.parts import Parts
from app.settings import MIN_SECRET_CHARS, load

PLACEHOLDERS = {
    "postgres": {"dsn": "postgresql://localhost"},
    "redis": {"url": "redis://localhost"},
    "auth": {"secret": "-" * MIN_SECRET_CHARS},
}
"""The objects behind the handlers want some; nothing connects or signs."""


def openapi_json() -> str:
    """The OpenAPI document as indented JSON. Raises ConfigError when the settings are wrong."""
    parts = Parts(load(PLACEHOLDERS), lambda _: None)
    return json.dumps(parts.document, indent=2, ensure_ascii=False) + "\n"
