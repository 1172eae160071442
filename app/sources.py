"""Where settings come from beside the files in `config/`: names as `IM_SECTION__KEY` with texts, in the environment and in secret files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from app.errors import ConfigError

PREFIX = "IM_"
SECRETS_DIR = "IM_SECRETS_DIR"


class NamedTexts(PydanticBaseSettingsSource):
    """`IM_SECTION__KEY` → text; the types of the settings make numbers and lists of the texts."""

    def __init__(self, settings_cls: type[BaseSettings], texts: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._texts = texts

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """One option; `__call__` gives all of them at once."""
        return self._nested().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All of them, sections as dicts."""
        return self._nested()

    def _nested(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, text in self._texts.items():
            section, _, key = name.removeprefix(PREFIX).lower().partition("__")
            if key:
                found.setdefault(section, {})[key] = text
            else:
                found[section] = text
        return found


def checked(texts: Mapping[str, str], sections: Mapping[str, bool], where: str) -> dict[str, str]:
    """The texts whose names begin with `IM_`.

    `sections` says of each top-level setting whether it is a section with keys. Raises ConfigError for a name that is no setting: a typo
    must not pass silently.
    """
    found = {name: text for name, text in texts.items() if name.startswith(PREFIX) and name != SECRETS_DIR}
    for name in found:
        section, _, key = name.removeprefix(PREFIX).lower().partition("__")
        if section not in sections or sections[section] != bool(key):
            raise ConfigError(f"Unknown setting {name} in {where}; `run.py checkconfig` lists all settings.")
    return found


def read_secret_files(folder: str) -> dict[str, str]:
    """Name → content of each file in the folder, without the line break at its end. Raises ConfigError."""
    try:
        # Mounts of Kubernetes hold hidden folders beside the files.
        files = [path for path in Path(folder).iterdir() if not path.name.startswith(".")]
        return {path.name.upper(): path.read_text(encoding="utf-8").rstrip("\r\n") for path in files}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"The secret files in {folder} ({SECRETS_DIR}) cannot be read: {reason}.") from None


def as_list(value: object) -> object:
    """`a,b` or a JSON array, as an environment variable gives it; anything else is for the type to judge."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('is not a JSON array; write a,b or ["a", "b"]') from None
    return [part.strip() for part in value.split(",") if part.strip()]
