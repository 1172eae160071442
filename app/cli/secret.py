"""The secret of a development machine, made once and kept in the data folder."""

import os
import secrets
import stat
import tempfile
from pathlib import Path

from app.errors import ConfigError
from app.settings import MIN_SECRET_CHARS

SECRET_BYTES = 32


def dev_secret(data_dir: Path) -> str:
    """Read `secret` in `data_dir`, or make it; only the owner may read it. Several processes may call this at once.

    Raises ConfigError when the folder or the file is of no use.
    """
    path = data_dir / "secret"
    try:
        if not path.exists():
            _make(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
        secret = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"Cannot keep the development secret in {path}: {error.strerror}; set IM_DATA_DIR.") from None
    except UnicodeDecodeError:
        secret = ""
    if len(secret) < MIN_SECRET_CHARS:
        raise ConfigError(
            f"{path} does not hold a secret of {MIN_SECRET_CHARS} characters; delete it to get a new one."
        )
    return secret


def _make(path: Path) -> None:
    """Written aside and linked, so that nobody reads half of it and the first of several writers wins."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".secret-")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")
        try:
            os.link(name, path)
        except FileExistsError:
            return
    finally:
        Path(name).unlink()
