"""Users, and what is asked of their names and passwords."""

import re
import unicodedata
from dataclasses import dataclass

from app.errors import BadRequest
from app.protocol.unicode import BIDI_CONTROLS, is_blank, nfc

USERNAME = re.compile(r"[A-Za-z0-9_]{3,20}")
PASSWORD_MIN, PASSWORD_MAX, PASSWORD_MAX_BYTES = 8, 64, 72
"""bcrypt looks at no more than 72 bytes; a longer password would be cut in silence."""
DISPLAY_NAME_MAX = 40


@dataclass(frozen=True, slots=True)
class User:
    """A user as others see them."""

    id: int
    username: str
    display_name: str


def check_username(name: str) -> str:
    """3 to 20 of `[A-Za-z0-9_]`. Raises BadRequest."""
    if not USERNAME.fullmatch(name):
        raise BadRequest("username must be 3 to 20 letters, digits or underscores", details={"field": "username"})
    return name


def check_password(password: str) -> str:
    """8 to 64 characters with a letter and a digit, at most 72 bytes, no NUL. Raises BadRequest, never quoting the password."""
    if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
        raise BadRequest("password must be 8 to 64 characters", details={"field": "password"})
    if not any(c.isalpha() for c in password) or not any(c.isdigit() for c in password):
        raise BadRequest("password needs at least one letter and one digit", details={"field": "password"})
    if "\0" in password or len(password.encode(errors="replace")) > PASSWORD_MAX_BYTES:
        raise BadRequest("password must be at most 72 bytes without NUL", details={"field": "password"})
    if any(unicodedata.category(c) == "Cs" for c in password):
        raise BadRequest("password must be valid Unicode", details={"field": "password"})
    return password


def check_display_name(name: str) -> str:
    """1 to 40 visible characters in NFC. Raises BadRequest."""
    details = {"field": "display_name"}
    if len(name) > 4 * DISPLAY_NAME_MAX or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        raise BadRequest(
            f"display_name must be 1 to {DISPLAY_NAME_MAX} characters, no control characters", details=details
        )
    name = nfc(name).strip()
    if any(c in BIDI_CONTROLS for c in name):
        raise BadRequest("display_name must not contain characters that turn the text around it", details=details)
    if not 1 <= len(name) <= DISPLAY_NAME_MAX or is_blank(name):
        raise BadRequest(f"display_name must be 1 to {DISPLAY_NAME_MAX} characters, not only blanks", details=details)
    return name
