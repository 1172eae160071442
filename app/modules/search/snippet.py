"""The part of a body that shows why it was found."""

from collections.abc import Sequence

from app.modules.search.folding import fold, origins
from app.modules.search.models import Part


class Snippets:
    """Cuts snippets of at most `code_points`, with at most `highlights_max` highlights."""

    def __init__(self, parts: Sequence[Part], *, code_points: int, highlights_max: int) -> None:
        self._parts = parts
        self._code_points = code_points
        self._highlights_max = highlights_max

    def matches(self, folded: str) -> bool:
        """Whether everything that is asked for occurs."""
        return all(any(True for _ in part.spans(folded)) for part in self._parts)

    def cut(self, body: str) -> tuple[str, list[tuple[int, int]]]:
        """The snippet and its highlights, rising and apart from each other."""
        spans = self._spans(body)
        start = 0
        if len(body) > self._code_points and spans:
            # A third of the room is for what stands before.
            start = min(max(0, spans[0][0] - self._code_points // 3), len(body) - self._code_points)
        end = min(len(body), start + self._code_points)
        inside = [(max(a, start) - start, min(b, end) - start) for a, b in spans if a < end and b > start]
        return body[start:end], inside[: self._highlights_max]

    def _spans(self, body: str) -> list[tuple[int, int]]:
        folded = fold(body)
        found = sorted(span for part in self._parts for span in part.spans(folded))
        if not found:
            return []
        origin = origins(body, folded)
        merged: list[tuple[int, int]] = []
        for first, end in found:
            start, stop = origin[first][0], origin[end - 1][1]
            if merged and start >= merged[0][0] + self._code_points:
                # The snippet cannot reach so far.
                break
            # What is invisible belongs to what stands before it: the form of an emoji, the joint of two.
            while stop < len(body) and not fold(body[stop]):
                stop += 1
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            else:
                merged.append((start, stop))
        return merged
