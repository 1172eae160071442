"""Text of clients in one form, at a cost that grows with its length only."""

import unicodedata

from app.errors import BadRequest

MARKS_MAX = 30
"""Combining marks on one letter: the limit of the Stream-Safe Text Format, UAX #15. No writing system needs more than a handful."""
BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They turn the text around them, so that one name can be made to look like another."""
_BLANK_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Zs", "Zl", "Zp"))
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Letters, marks and symbols by their category, that show nothing: fillers of Hangul, the empty Braille cell …"""


def is_blank(text: str) -> bool:
    """Nothing of it can be seen."""
    return all(
        unicodedata.category(c) in _BLANK_CATEGORIES or c in _BLANK_LETTERS or "\ufe00" <= c <= "\ufe0f" for c in text
    )


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
