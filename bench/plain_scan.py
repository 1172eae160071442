"""Search as it is promised, in the plainest way: look at every message. Shares nothing with the server, so that it can judge it."""

import random
import unicodedata
from collections.abc import Mapping, Sequence

KINDS = ("one character", "two characters", "many characters", "word", "prefix", "phrase", "mixed", "two parts")


def folded(text: str) -> str:
    """Compatibility forms and case make no difference; neither do characters that nobody sees."""
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def scan(q: str, texts: Mapping[int, str]) -> list[int]:
    """Keys of the folded texts in which everything that `q` asks for occurs, highest first."""
    parts = _parts(folded(q))
    return sorted((key for key, text in texts.items() if all(_occurs(*part, text) for part in parts)), reverse=True)


def _parts(q: str) -> list[tuple[str, bool]]:
    """(part, whether it was quoted)."""
    parts: list[tuple[str, bool]] = []
    for number, piece in enumerate(q.split('"')):
        if number % 2:
            parts.append((piece.strip(), True))
        else:
            parts += [(each, False) for each in piece.split()]
    return [part for part in parts if any(_is_letter(c) or _is_alone(c) for c in part[0])]


def _occurs(part: str, quoted: bool, text: str) -> bool:
    at = text.find(part)
    anywhere = not quoted and any(map(_is_alone, part))
    while at >= 0:
        end = at + len(part)
        begins = anywhere or not (_is_letter(part[0]) and at and _is_letter(text[at - 1]))
        ends = not quoted or not (_is_letter(part[-1]) and end < len(text) and _is_letter(text[end]))
        if begins and ends:
            return True
        at = text.find(part, at + 1)
    return False


def _is_alone(character: str) -> bool:
    """A character of Chinese and the like, or a symbol: no blanks around it make it a word."""
    name = unicodedata.name(character, "")
    return unicodedata.category(character) == "So" or name.startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA", "HANGUL"))


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM" and not _is_alone(character)


def ask(kind: str, texts: Sequence[str], chance: random.Random) -> str:
    """A query of this kind that at least one of the folded texts answers."""
    while True:
        text = chance.choice(texts)
        chinese = "".join(c if _is_alone(c) else " " for c in text).split()
        words = [run for run in "".join(c if _is_letter(c) else " " for c in text).split() if len(run) > 1]
        found = _cut(kind, text, chinese, words, chance)
        if found:
            return found


def _cut(kind: str, text: str, chinese: list[str], words: list[str], chance: random.Random) -> str | None:
    def neighbours(least: int, most: int) -> str | None:
        runs = [run for run in chinese if len(run) >= least]
        if not runs:
            return None
        run = chance.choice(runs)
        length = chance.randint(least, min(most, len(run)))
        start = chance.randint(0, len(run) - length)
        return run[start : start + length]

    if kind == "one character":
        return neighbours(1, 1)
    if kind == "two characters":
        return neighbours(2, 2)
    if kind == "many characters":
        return neighbours(3, 8)
    if kind == "two parts":
        first, second = neighbours(1, 3), chance.choice(words) if words else neighbours(2, 2)
        return f"{first} {second}" if first and second else None
    if kind == "mixed":
        seams = [i for i in range(1, len(text)) if _is_alone(text[i - 1]) and _is_letter(text[i])]
        if not seams:
            return None
        seam = chance.choice(seams)
        around = text[max(0, seam - 2) : seam + 4].replace('"', " ")
        return next((piece for piece in around.split() if _is_alone(piece[0]) and _is_letter(piece[-1])), None)
    if not words:
        return None
    word = chance.choice(words)
    if kind == "word":
        return word
    if kind == "prefix":
        return word[: max(1, len(word) // 2)]
    pieces = text.split(" ")
    start = chance.randrange(len(pieces))
    phrase = " ".join(pieces[start : start + 3]).strip()
    return f'"{phrase}"' if len(pieces) >= 3 and len(phrase) > 3 and '"' not in phrase and "  " not in phrase else None
