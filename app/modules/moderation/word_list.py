"""A list of words and where they occur in a text."""

from collections.abc import Iterable

from ahocorasick_rs import AhoCorasick

from app.modules.moderation.folding import Folded, fold, has_marks, letters_of

Marks = tuple[frozenset[str], ...]
"""The marks of a word, letter by letter."""


class WordList:
    """A word occurs where its letters stand in a row, also inside a longer word, each with at least the marks it has in the list.

    So `cafe` finds `Café` and `CAFE` in any width, while `café` finds only what has the accent.
    """

    def __init__(self, words: Iterable[str]) -> None:
        listed: dict[str, set[Marks]] = {}
        for word in words:
            marks: Marks = tuple(fold(word).marks) if has_marks(word) else ()
            listed.setdefault(letters_of(word), set()).add(marks)
        listed.pop("", None)
        self._count = len(listed)
        # Few words have marks; the others need no look at how they were found.
        self._marks = {index: marks for index, marks in enumerate(listed.values()) if () not in marks}
        self._automaton = AhoCorasick(listed) if listed else None

    def __len__(self) -> int:
        return self._count

    def occurs_in(self, text: str) -> bool:
        """Whether any word occurs."""
        found = self._candidates(text)
        return any(word not in self._marks for word, _, _ in found) or bool(found and self._spans(fold(text), found))

    def spans_in(self, text: str) -> list[tuple[int, int]]:
        """The code points `[start, end)` of every occurrence, with the marks and invisible characters on its letters."""
        found = self._candidates(text)
        return self._spans(fold(text), found) if found else []

    def _candidates(self, text: str) -> list[tuple[int, int, int]]:
        if self._automaton is None:
            return []
        return self._automaton.find_matches_as_indexes(letters_of(text), overlapping=True)

    def _spans(self, folded: Folded, found: Iterable[tuple[int, int, int]]) -> list[tuple[int, int]]:
        spans = []
        for word, start, end in found:
            carried = folded.marks[start:end]
            if word not in self._marks or any(_covers(carried, marks) for marks in self._marks[word]):
                spans.append((folded.spans[start][0], folded.spans[end - 1][1]))
        return spans


def _covers(carried: Iterable[frozenset[str]], needed: Marks) -> bool:
    return all(least <= there for least, there in zip(needed, carried, strict=True))
