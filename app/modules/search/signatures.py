"""Bloom filters: what is found in a block of messages, in 1 KB. A text sets the bits of its words; what a query asks for must be set.

What is set may be set by other words, so a block that has all bits only may hold what is looked for. A block that lacks one does not.
The words of texts and of queries are made here and nowhere else. Emptying search_progress and search_block has everything indexed again.
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator
from zlib import crc32

from app.modules.search.folding import SEPARATORS, UNSPACED

BITS = 8192
"""Of a signature; the column has as many."""
RUN = re.compile(f"(?P<word>[^{SEPARATORS}{UNSPACED}]+)|[{UNSPACED}]+")
_WORDS = re.compile(f"[^{SEPARATORS}{UNSPACED}]+")
_UNSPACED = re.compile(f"[{UNSPACED}]+")

_BEGINNINGS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Every part of a query may go on: of longer beginnings the next shorter one of these is looked for, and all before it."""
_WHOLE_MAX = 64
"""Characters of a whole word; of a longer one this beginning counts as the whole."""
_END = " "
"""Behind a whole word. No word has a blank in it."""
_BEGINNING_ENDS = tuple(4 * length for length in _BEGINNINGS[1:])
_END_DATA = _END.encode("utf-32-le")
_FIRST, _SECOND, _THIRD = 0x5BD1E995, 0x7FEB352D, 0x68E31DA5
"""Odd numbers of 31 bits: a character has 21, so no sum of two products leaves its 64."""
_AT_ONCE = 511
"""Characters of a run; the next ones begin with the last of these."""
_LANES, _ONE, _TWO = (
    int.from_bytes(lane.to_bytes(8, "little") * ((_AT_ONCE + 1) // 2), "little")
    for lane in (0xFFFFFFFF, BITS - 1, (BITS - 1) << 16 | BITS - 1)
)
_LOW = BITS - 1
_HIGH = 32 - _LOW.bit_length()
_REMEMBERED_MAX = 20_000
"""Words of which the positions are kept: up to 8 MB."""
_SET = ord("1")


def words_of(folded: str) -> set[str]:
    """What is found of a text.

    Of scripts without spaces, and of symbols, each character and each two neighbours, whatever stands between them; of other words their
    beginnings, and the whole.
    """
    found = set(_of_run("".join(_UNSPACED.findall(folded))))
    for word in _WORDS.findall(folded):
        found.update(_of_word(word, whole=True))
    return found


def words_asked(text: str, *, anywhere: bool, phrase: bool) -> Iterator[str]:
    """What every text has in which this part of a query occurs; `phrase`: it must end where a word ends."""
    for run in RUN.finditer(text):
        if run["word"] is None:
            yield from _of_run(run[0])
        elif run.start() or not anywhere:
            # Elsewhere the word may begin earlier in the message, and how is not known.
            yield from _of_word(run[0], whole=phrase or run.end() < len(text))


def _of_run(run: str) -> Iterator[str]:
    yield from run
    for at in range(len(run) - 1):
        yield run[at : at + 2]


def _of_word(word: str, *, whole: bool) -> Iterator[str]:
    for length in _BEGINNINGS:
        if length <= len(word):
            yield word[:length]
    if whole:
        yield word[:_WHOLE_MAX] + _END


def positions(word: str) -> tuple[int, ...]:
    """The bits of a word. A pair or a longer beginning is asked for together with what it begins with, so two each will do."""
    if _UNSPACED.match(word):
        pairs_and_singles = _positions_of_run(word)
        # Two of each pair, of which the last has nothing behind it; two of each character; a third of each.
        return pairs_and_singles[:2] if len(word) == 2 else pairs_and_singles
    code = crc32(word.encode("utf-32-le"))
    return code & _LOW, code >> _HIGH


def _positions_of_run(run: str) -> tuple[int, ...]:
    """Of all pairs and characters of a run at once, in one number with 64 bits for each two characters: two products and their sum."""
    count = len(run)
    both = int.from_bytes(run.encode("utf-32-le"), "little")
    even, odd = both & _LANES, both >> 32 & _LANES
    even_first, odd_first = even * _FIRST, odd * _FIRST
    pairs = even_first + odd * _SECOND >> 22 & _TWO | (odd_first + (even >> 64) * _SECOND >> 22 & _TWO) << 32
    singles = even_first >> 22 & _TWO | (odd_first >> 22 & _TWO) << 32
    thirds = even * _THIRD >> 22 & _ONE | (odd * _THIRD >> 22 & _ONE) << 32
    # An odd number of characters leaves half a lane without one; beyond 32 bits for each character there is nothing else.
    bits = 32 * count
    where = pairs & (1 << bits) - 1 | (singles & (1 << bits) - 1) << bits | (thirds & (1 << bits) - 1) << 2 * bits
    return struct.unpack(f"<{4 * count}H{count}I", where.to_bytes(12 * count, "little"))


class Flags:
    """A signature in the making; `raw` has an ASCII digit for each bit."""

    __slots__ = ("raw",)

    def __init__(self, where: Iterable[int] = ()) -> None:
        self.raw = bytearray(b"0" * BITS)
        for position in where:
            self.raw[position] = _SET

    def packed(self) -> bytes:
        """The signature, its first bit first, as PostgreSQL has it."""
        return int(self.raw, 2).to_bytes(BITS // 8, "big")


class Signer:
    """Sets the bits of texts, and remembers those of frequent words: it is part of what each message costs."""

    def __init__(self) -> None:
        self._words = _Remembered(_positions_of_word)

    def sign(self, folded: str, flags: Flags) -> int:
        """Set what `words_of` says, in a tenth of the time. Returns the number of words, those that occur twice counted twice."""
        raw = flags.raw
        count = 0
        for word in _WORDS.findall(folded):
            found = self._words[word[:_WHOLE_MAX]]
            count += len(found) // 2
            for position in found:
                raw[position] = _SET
        if not folded.isascii():
            run = "".join(_UNSPACED.findall(folded))
            count += 2 * len(run)
            for at in range(0, len(run), _AT_ONCE):
                # The last one again, as the first of a pair.
                for position in _positions_of_run(run[at : at + _AT_ONCE + 1]):
                    raw[position] = _SET
        return count


class _Remembered(dict[str, tuple[int, ...]]):
    """Word → positions; all are forgotten when it is full."""

    def __init__(self, make: Callable[[str], tuple[int, ...]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, word: str) -> tuple[int, ...]:
        if len(self) >= _REMEMBERED_MAX:
            self.clear()
        made = self[word] = self._make(word)
        return made


def _positions_of_word(word: str) -> tuple[int, ...]:
    """As `positions` of all that `_of_word` gives; the code of a beginning goes on to that of the next."""
    data = word.encode("utf-32-le")
    code = crc32(data[:4])
    found = [code & _LOW, code >> _HIGH]
    before = 4
    for end in _BEGINNING_ENDS:
        if end > len(data):
            break
        code = crc32(data[before:end], code)
        before = end
        found += (code & _LOW, code >> _HIGH)
    code = crc32(data[before:] + _END_DATA, code)
    found += (code & _LOW, code >> _HIGH)
    return tuple(found)
