"""Text of clients in one form, at a cost that grows with its length only."""

import unicodedata

from app.errors import BadRequest

MARKS_MAX = 30
"""Combining marks on one letter: the limit of the Stream-Safe Text Format, UAX #15. No writing system needs more than a handful."""
BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They turn the text around them, so that one name can be made to look like another."""


def nfc(text: str) -> str:
    """`text` in NFC. Raises BadRequest beyond `MARKS_MAX`: sorting the marks of one letter takes the square of their number."""
    if unicodedata.is_normalized("NFC", text):
        return text
    run = 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        if run > MARKS_MAX:
            raise BadRequest(f"a letter has more than {MARKS_MAX} combining marks")
    return unicodedata.normalize("NFC", text)
