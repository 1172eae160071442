"""Output for people and tools: the settings in effect, the API's description."""

import json
from ipaddress import IPv4Address
from pathlib import Path

from pydantic import BaseModel, SecretStr

from app.sections import Http
from app.settings import CONFIG_DIR, Settings

MASK = "**********"


def effective_toml(settings: Settings) -> str:
    """`settings` as TOML with a table per section; secrets that are set show as asterisks."""
    sources = f"# {CONFIG_DIR / 'default.toml'}, {CONFIG_DIR / settings.env}.toml, secret files, environment\n"
    plain, tables = [], []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            tables.append(f"\n[{name}]\n" + "".join(_line(key, item) for key, item in value))
        else:
            plain.append(_line(name, value))
    return sources + "".join(plain) + "".join(tables)


def public_url(http: Http) -> str:
    """Where people reach the server; on the machine itself unless the settings say more."""
    every_interface = http.host in ("", "::", str(IPv4Address(0)))
    host = "localhost" if every_interface or http.host in ("127.0.0.1", "::1") else http.host
    return http.public_url or f"http://{f'[{host}]' if ':' in host else host}:{http.port}"


def _line(key: str, value: object) -> str:
    """JSON's strings, numbers, booleans and lists are TOML's too."""
    if isinstance(value, SecretStr):
        value = MASK if value.get_secret_value() else ""
    if isinstance(value, Path):
        value = str(value)
    return f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
