"""NFC as Unicode defines it, and texts that would take long are refused."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest
from app.protocol.unicode import MARKS_MAX, is_blank, nfc

MARKS = "\u0301\u0316\u0334\u0345\u05b0\u3099"


@given(st.text(st.characters(codec="utf-8") | st.sampled_from(MARKS + "e가か"), max_size=40))
def test_the_form_is_nfc(text: str) -> None:
    try:
        assert nfc(text) == unicodedata.normalize("NFC", text)
    except BadRequest:
        assert sum(map(bool, map(unicodedata.combining, text))) > MARKS_MAX


@pytest.mark.parametrize("text", ["e" + "\u0345\u0334" * 16, "e" + "\u0345" * 4000 + "\u0334" * 4000])
def test_unsorted_marks_without_end_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="combining marks"):
        nfc(text)


@pytest.mark.parametrize(
    "text", ["", " ", "\u3164", "\u2800\u2800", "\u200b\u200d", "\ufe0f", "\u00ad\n\t", "\u3000", "\ufeff"]
)
def test_what_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)


# The last two are not in Python's tables: an emoji that is newer than they are, and a character of private use.
@pytest.mark.parametrize("text", ["a", " 好", "\u200b.", "🐦", "❤️", "가", "\U0001fae9", "\uf8ff"])
def test_what_can_be_seen_is_not(text: str) -> None:
    assert not is_blank(text)
