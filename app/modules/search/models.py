"""What is asked for, and what was found."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.errors import BadRequest
from app.modules.search.folding import SEPARATORS, UNSPACED, fold
from app.modules.search.signatures import RUN, words_asked
from app.protocol.unicode import nfc

_UNSPACED = re.compile(f"[{UNSPACED}]")
_WORD_END = re.compile(f"[{SEPARATORS}{UNSPACED}]")
# Keyboards and editors turn straight quotes into these; full-width ones fold to straight ones.
_QUOTES = str.maketrans(dict.fromkeys("“”„‟", '"'))
_PART = re.compile(r'"(?P<phrase>[^"]*)"?|[^ "]+')


@dataclass(frozen=True, slots=True)
class Part:
    """A text that must occur, a blank in it for any number of them; `begins`, `ends`: no word may go on before or after it."""

    text: str
    begins: bool
    ends: bool

    literal: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pieces = (" +" if c == " " else f"\\{c}" if c.isascii() and not c.isalnum() else c for c in self.text)
        object.__setattr__(self, "literal", re.compile("".join(pieces)))

    def spans(self, folded: str) -> Iterator[tuple[int, int]]:
        """Where it occurs, `[start, end)`, without overlaps."""
        # One expression with the ends of words in it would say the same, but takes milliseconds to compile.
        literal = self.literal
        at = literal.search(folded)
        while at is not None:
            start, end = at.span()
            whole = not (self.begins and start and _is_word(folded[start - 1]))
            if whole and not (self.ends and end < len(folded) and _is_word(folded[end])):
                yield start, end
                at = literal.search(folded, end)
            elif self.begins:
                # Not again from every character of a long word: what must begin a word cannot occur before this one ends.
                rest = _WORD_END.search(folded, start)
                at = literal.search(folded, rest.end()) if rest else None
            else:
                at = literal.search(folded, start + 1)


@dataclass(frozen=True, slots=True)
class Query:
    """What must occur in a folded text: every part. `words` follow from the parts, but do not suffice."""

    parts: list[Part]
    words: list[str]


@dataclass(frozen=True, slots=True)
class Text:
    """A text message that may match."""

    message_id: int
    group_id: int
    seq: int
    body: str


@dataclass(frozen=True, slots=True)
class Block:
    """Messages of a group that follow each other; none has a higher id than `last_id`."""

    group_id: int
    first_seq: int
    last_seq: int
    last_id: int


@dataclass(frozen=True, slots=True)
class Found:
    """A message as JSON, a part of its body, and where in that part the query occurs: `[start, end)` in code points."""

    item: bytes
    snippet: str
    highlights: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Results:
    """Newest first; `next_id` goes into `before` for older ones, None at the end. With a `next_id` there may be few items, or none."""

    items: list[Found]
    next_id: int | None


def parse_query(q: str, *, max_code_points: int, max_parts: int) -> Query:
    """Split at blanks outside quotes. Raises BadRequest.

    A part with an unspaced character may stand anywhere, another one must begin where a word begins; a part in quotes must end where a
    word ends, too. A quote that is not closed reaches to the end. Parts of nothing but punctuation are left out.
    """
    if not 1 <= len(q) <= max_code_points:
        raise BadRequest(f"q must be 1 to {max_code_points} characters")
    if "\0" in q or any("\ud800" <= character <= "\udfff" for character in q):
        raise BadRequest("q must be valid Unicode without NUL")
    parts: dict[Part, None] = {}
    words: dict[str, None] = {}
    for part in _PART.finditer(fold(nfc(q).translate(_QUOTES))):
        phrase = part["phrase"] is not None
        text = " ".join((part["phrase"] if phrase else part[0]).split())
        if RUN.search(text):
            anywhere = not phrase and _UNSPACED.search(text) is not None
            begins = not anywhere and _is_word(text[0])
            parts[Part(text, begins, ends=phrase and _is_word(text[-1]))] = None
            words |= dict.fromkeys(words_asked(text, anywhere=anywhere, phrase=phrase))
    if not parts:
        raise BadRequest("q must contain a letter, a digit or a symbol, not only punctuation")
    if len(parts) > max_parts:
        raise BadRequest(f"q must have at most {max_parts} parts")
    return Query(list(parts), list(words))


def _is_word(character: str) -> bool:
    found = RUN.match(character)
    return found is not None and found["word"] is not None
