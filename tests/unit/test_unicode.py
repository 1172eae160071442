"""NFC as Unicode defines it, and texts that would take long are refused."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest
from app.protocol.unicode import MARKS_MAX, nfc

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
