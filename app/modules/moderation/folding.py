"""Folding: what a reader takes for the same word becomes the same letters, however it was typed.

Width, case, ligatures and other compatibility forms fold by NFKC and casefold, and characters that draw nothing are dropped, as
in Unicode's NFKC_Casefold (The Unicode Standard, 3.13). Accents and strokes are kept apart from the letters that carry them, so
that a word is found whatever was added to it.
"""

import re
import unicodedata
from dataclasses import dataclass

# Unicode's Default_Ignorable_Code_Point, then annotation marks and the control characters that are not blanks.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]"
)
# Marks that fit on any letter. Those of one script (Thai vowels, Japanese voicing) make other letters, so they stay.
_MARK = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]")


@dataclass(frozen=True, slots=True)
class Folded:
    """Letters in order, and for each of them its marks and the code points `[start, end)` of the text that it came from."""

    letters: str
    marks: list[frozenset[str]]
    spans: list[tuple[int, int]]


def letters_of(text: str) -> str:
    """Only the letters; quick."""
    if text.isascii():
        return _INVISIBLE.sub("", text).lower()
    return unicodedata.normalize("NFC", _MARK.sub("", _decomposed(text)))


def has_marks(text: str) -> bool:
    """Whether any letter carries a mark."""
    return not text.isascii() and _MARK.search(_decomposed(text)) is not None


def fold(text: str) -> Folded:
    """Letters with where they came from; letters that became one (a ligature) or many share their span."""
    bounds = _segments(text)
    pieces = [letters_of(text[start:end]) for start, end in bounds]
    letters = letters_of(text)
    if "".join(pieces) != letters:
        # Marks of several scripts on one letter, in an order that only the whole shows: then it counts as one piece.
        bounds, pieces = [(0, len(text))], [letters]
    marks: list[frozenset[str]] = []
    spans: list[tuple[int, int]] = []
    for (start, end), piece in zip(bounds, pieces, strict=True):
        if piece:
            own = frozenset() if text[start:end].isascii() else frozenset(_MARK.findall(_decomposed(text[start:end])))
            marks += [frozenset()] * (len(piece) - 1) + [own]
            spans += [(start, end)] * len(piece)
    return Folded(letters, marks, spans)


def _decomposed(text: str) -> str:
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold())


def _segments(text: str) -> list[tuple[int, int]]:
    """Cut the text where folding the parts gives the same as folding the whole."""
    bounds: list[tuple[int, int]] = []
    start = 0
    folded: str | None = ""
    for index, character in enumerate(text):
        piece = letters_of(character)
        joins = not piece or unicodedata.combining(character) != 0
        # ASCII and Chinese characters join with nothing before them.
        if not joins and not (character.isascii() or "\u4e00" <= character <= "\u9fff"):
            if folded is None:
                folded = letters_of(text[start:index])
            joins = letters_of(text[start : index + 1]) != folded + piece
        if joins:
            folded = None
        elif index:
            bounds.append((start, index))
            start, folded = index, piece
        else:
            folded = piece
    bounds.append((start, len(text)))
    return bounds
