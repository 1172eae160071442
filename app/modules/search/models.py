"""What is asked for, and what was found."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from app.errors import BadRequest
from app.modules.search.folding import SEPARATORS, UNSPACED, fold
from app.protocol.unicode import nfc

_RUN = re.compile(f"(?P<word>[^{SEPARATORS}{UNSPACED}]+)|[{UNSPACED}]+")
_UNSPACED = re.compile(f"[{UNSPACED}]")
_NO_WORD = f"[{SEPARATORS}{UNSPACED}]"
_WORD_END = re.compile(_NO_WORD)
# Keyboards and editors turn straight quotes into these; full-width ones fold to straight ones.
_QUOTES = str.maketrans(dict.fromkeys("“”„‟", '"'))
_PART = re.compile(r'"(?P<phrase>[^"]*)"?|[^ "]+')


@dataclass(frozen=True, slots=True)
class Run:
    """A word, or characters without a space between them, that the index must know; `prefix`: it may go on."""

    text: str
    prefix: bool


@dataclass(frozen=True, slots=True)
class Part:
    """A text that must occur, a blank in it for any number of them; `begins`, `ends`: no word may go on before or after it."""

    text: str
    begins: bool
    ends: bool

    @property
    def pattern(self) -> str:
        """A regular expression for PostgreSQL."""
        begin, end = ("(^|" if self.begins else ""), ("($|" if self.ends else "")
        return (begin and f"{begin}{_NO_WORD})") + self._literal + (end and f"{end}{_NO_WORD})")

    def spans(self, folded: str) -> Iterator[tuple[int, int]]:
        """Where it occurs, `[start, end)`, without overlaps."""
        # The pattern above would say the same, but takes Python milliseconds to compile.
        literal = re.compile(self._literal)
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

    @property
    def _literal(self) -> str:
        return "".join(" +" if c == " " else f"\\{c}" if c.isascii() and not c.isalnum() else c for c in self.text)


@dataclass(frozen=True, slots=True)
class Query:
    """What must occur in a folded text: every part. `runs` follow from the parts, but do not suffice."""

    parts: list[Part]
    runs: list[Run]

    @property
    def patterns(self) -> list[str]:
        """Of all parts."""
        return [part.pattern for part in self.parts]


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that matches."""

    message_id: int
    group_id: int
    seq: int


@dataclass(frozen=True, slots=True)
class Found:
    """A message as JSON, a part of its body, and where in that part the query occurs: `[start, end)` in code points."""

    item: bytes
    snippet: str
    highlights: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Results:
    """Newest first; `next_id` goes into `before` for older ones, None at the end."""

    items: list[Found]
    next_id: int | None


def parse_query(q: str, *, max_code_points: int, max_parts: int, filter_code_points: int) -> Query:
    """Split at blanks outside quotes. Raises BadRequest.

    A part with an unspaced character may stand anywhere, another one must begin where a word begins; a part in quotes must end where a
    word ends, too. A quote that is not closed reaches to the end. Parts of nothing but punctuation are left out.
    Per run, `filter_code_points` are looked up in the index; the parts decide about the rest.
    """
    if not 1 <= len(q) <= max_code_points:
        raise BadRequest(f"q must be 1 to {max_code_points} characters")
    if "\0" in q or any("\ud800" <= character <= "\udfff" for character in q):
        raise BadRequest("q must be valid Unicode without NUL")
    parts: dict[Part, None] = {}
    runs: dict[Run, None] = {}
    for part in _PART.finditer(fold(nfc(q).translate(_QUOTES))):
        phrase = part["phrase"] is not None
        text = " ".join((part["phrase"] if phrase else part[0]).split())
        if _RUN.search(text):
            anywhere = not phrase and _UNSPACED.search(text) is not None
            begins = not anywhere and _is_word(text[0])
            parts[Part(text, begins, ends=phrase and _is_word(text[-1]))] = None
            runs |= dict.fromkeys(_runs(text, anywhere, phrase, filter_code_points))
    if not parts:
        raise BadRequest("q must contain a letter, a digit or a symbol, not only punctuation")
    if len(parts) > max_parts:
        raise BadRequest(f"q must have at most {max_parts} parts")
    return Query(list(parts), list(runs))


def _is_word(character: str) -> bool:
    found = _RUN.match(character)
    return found is not None and found["word"] is not None


def _runs(text: str, anywhere: bool, phrase: bool, most: int) -> list[Run]:
    found = []
    for run in _RUN.finditer(text):
        if run["word"] is None:
            # One character is looked for as the beginning of a pair, or as the last of a run.
            found.append(Run(run[0][:most], prefix=len(run[0][:most]) == 1))
        elif run.start() or not anywhere:
            # Where the word may begin earlier in the message, the index cannot tell. Longer ones are indexed by their beginning.
            open_end = run.end() == len(text) and not phrase and len(run[0]) < WORD_INDEXED
            found.append(Run(run[0], open_end))
    return found


WORD_INDEXED = 64
"""Characters of a word that are in the index; the migration cuts there."""
