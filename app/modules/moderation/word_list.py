"""A list of words and where they occur in a text."""

from collections.abc import Iterable

from ahocorasick_rs import AhoCorasick

from app.modules.moderation.folding import Folded, fold, letters_of

Marks = tuple[frozenset[str], ...]
"""The marks of a word, letter by letter."""


class WordList:
    """A word occurs where its letters stand in a row, also inside a longer word, each with at least the marks it has in the list.

    So `cafe` finds `Café` and `CAFE` in any width, while `café` finds only what has the accent.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._marks: dict[str, set[Marks]] = {}
        for word in words:
            folded = fold(word)
            if folded.letters:
                self._marks.setdefault(folded.letters, set()).add(tuple(folded.marks))
        self._words = list(self._marks)
        self._plain = [any(not any(marks) for marks in self._marks[word]) for word in self._words]
        self._automaton = AhoCorasick(self._words) if self._words else None

    def __len__(self) -> int:
        return len(self._words)

    def occurs_in(self, text: str) -> bool:
        """Whether any word occurs."""
        found = self._candidates(text)
        return any(self._plain[word] for word, _, _ in found) or bool(found and self._spans(fold(text), found))

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
            if self._plain[word] or any(
                all(needed <= there for needed, there in zip(marks, carried, strict=True))
                for marks in self._marks[self._words[word]]
            ):
                spans.append((folded.spans[start][0], folded.spans[end - 1][1]))
        return spans
