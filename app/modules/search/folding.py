"""One form of text for the index and for queries, and where each folded character came from.

NFKC_Casefold (The Unicode Standard, 3.13): compatibility forms, case and invisible characters make no difference. It is done here and not
in PostgreSQL, whose lower() depends on the locale and whose casefold() does not exist before version 18.
"""

import re
import unicodedata

SEPARATORS = (
    r"\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb\u00bf\u00d7\u00f7"
    r"\u037e\u0387\u055a-\u055f\u0589\u058a\u05be\u05c0\u05c3\u05f3\u05f4\u060c\u061b\u061f\u066a-\u066d\u06d4"
    r"\u0964\u0965\u2000-\u206f\u3000-\u3004\u3008-\u3020\u3030\u303d\u30a0\u30fb\ufe10-\ufe1f\ufe30-\ufe6f"
    r"\uff5f-\uff65\ufff0-\uffff"
)
"""Blanks, controls and punctuation: a word ends there. Ranges of a character class, for `re` and for PostgreSQL alike."""
UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u11ff\u1780-\u17ff\u20a0-\u20cf\u2100-\u214f\u2190-\u2bff\u2e80-\u2fff\u3005-\u3007"
    r"\u3021-\u302f\u3031-\u303c\u303e-\u309f\u30a1-\u30fa\u30fc-\ua4cf\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff"
    r"\U0001b000-\U0001b16f\U0001f000-\U0001fbff\U00020000-\U0003ffff"
)
"""Scripts that put no spaces between words (Chinese, Japanese, Korean, Thai …), and symbols: found by any part of a run."""

# Unicode's Default_Ignorable_Code_Point.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_BLANK = re.compile(r"[^\S ]")


def fold(text: str) -> str:
    """NFKC_Casefold of `text`, every blank as a space."""
    if text.isascii():
        return _BLANK.sub(" ", text.lower())
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
    return _BLANK.sub(" ", unicodedata.normalize("NFKC", text))


def origins(text: str, folded: str) -> list[tuple[int, int]]:
    """For each character of `folded`, which is fold(text), the code points `[start, end)` of `text` that it came from."""
    if len(text) == len(folded) and text.isascii():
        return [(at, at + 1) for at in range(len(text))]
    bounds = [(at, at + 1) for at in range(len(text))]
    # Chinese characters and small ASCII letters fold to themselves.
    pieces = [c if "\u4e00" <= c <= "\u9fff" or "a" <= c <= "z" else fold(c) for c in text]
    if "".join(pieces) != folded:
        bounds = _segments(text, pieces)
        pieces = [fold(text[start:end]) for start, end in bounds]
    if "".join(pieces) != folded:
        # Marks that only the whole puts in order: then it counts as one piece.
        bounds, pieces = [(0, len(text))], [folded]
    return [bound for bound, piece in zip(bounds, pieces, strict=True) for _ in piece]


def _segments(text: str, pieces: list[str]) -> list[tuple[int, int]]:
    """Cut the text where folding two neighbours together is the same as folding them apart."""
    bounds: list[tuple[int, int]] = []
    start, previous = 0, ""
    for at, piece in enumerate(pieces):
        # Invisible ones are looked through: what stands on both sides may still become one character.
        if not piece:
            continue
        if at and fold(previous + text[at]) == fold(previous) + piece and not unicodedata.combining(text[at]):
            bounds.append((start, at))
            start, previous = at, ""
        previous = (previous + text[at])[-_TOGETHER_MAX:]
    bounds.append((start, len(text)))
    return bounds


_TOGETHER_MAX = 32
"""Characters that are looked at together: no letter with its marks is longer (UAX #15, Stream-Safe Text Format)."""
