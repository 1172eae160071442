"""Folding, queries and snippets of search, without a database."""

# ruff: noqa: RUF001 - full-width letters are what is tested

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BadRequest
from app.modules.search import models
from app.modules.search.folding import SEPARATORS, UNSPACED, fold, origins
from app.modules.search.models import Part, Query, parse_query
from app.modules.search.snippet import Snippets

TEXT = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
        st.sampled_from("aB用做 \n\"'ßİﬁ㎏Ａｶﾞe\u0301\u200d\ufe0f😂각\u1100\u1161"),
    ),
    max_size=30,
)


def parse(q: str) -> Query:
    return parse_query(q, max_code_points=200, max_parts=10)


def cut(q: str, body: str, code_points: int = 120) -> tuple[str, list[str]]:
    snippet, highlights = Snippets(parse(q).parts, code_points=code_points, highlights_max=20).cut(body)
    return snippet, [snippet[start:end] for start, end in highlights]


def matches(q: str, body: str) -> bool:
    return Snippets(parse(q).parts, code_points=120, highlights_max=20).matches(fold(body))


def test_a_character_is_of_one_class() -> None:
    separator, unspaced = re.compile(f"[{SEPARATORS}]"), re.compile(f"[{UNSPACED}]")
    for code in range(1, 0x110000):
        character = chr(code)
        assert not (separator.match(character) and unspaced.match(character)), hex(code)
        if 0xD800 <= code <= 0xDFFF or fold(character) != character:
            continue
        category = unicodedata.category(character)
        if category in ("Ll", "Lo", "Nd"):
            assert not separator.match(character), (hex(code), unicodedata.name(character))
        if unicodedata.name(character, "").startswith(
            ("CJK UNIFIED", "HIRAGANA LETTER", "HANGUL SYLLABLE", "THAI CHAR")
        ):
            assert unspaced.match(character) or category == "Sc", hex(code)


@given(TEXT)
def test_every_folded_character_came_from_somewhere(text: str) -> None:
    folded = fold(text)
    found = origins(text, folded)
    assert len(found) == len(folded)
    assert found == sorted(found)
    assert all(0 <= start < end <= len(text) for start, end in found)
    # A piece folds to what is said to come from it.
    for piece in set(found):
        own = "".join(character for character, origin in zip(folded, found, strict=True) if origin == piece)
        assert fold(text[slice(*piece)]) == own


@given(TEXT)
def test_folding_twice_changes_nothing_more(text: str) -> None:
    assert fold(fold(text)) == fold(text) or not unicodedata.is_normalized("NFC", text)


@pytest.mark.parametrize(
    ("q", "body", "found"),
    [
        ("redis", "Use REDIS, redis2 and myredis", ["REDIS", "redis"]),
        ("缓存", "我们用缓存做缓存吧", ["缓存", "缓存"]),
        ("存", "缓存", ["存"]),
        ("用Redis做", "我们用redis做缓存", ["用redis做"]),
        ("red 缓", "用redis做缓存", ["red", "缓"]),
        ("Redis做", "用myRedis做", ["Redis做"]),
        ("fi", "ﬁnd the ﬁsh", ["ﬁ", "ﬁ"]),
        ("kg", "about ㎏", ["㎏"]),
        ("abc", "ＡＢＣＤ", ["ＡＢＣ"]),
        ("straße", "STRASSE Straße", ["STRASSE", "Straße"]),
        ("strass", "Straße", ["Straß"]),
        ("İstanbul", "in İSTANBUL", ["İSTANBUL"]),
        ("ガ", "ｶﾞｽ", ["ｶﾞ"]),
        ("𠮷野", "吃𠮷野家", ["𠮷野"]),
        ("😂", "ha 😂😂", ["😂😂"]),
        ("❤", "I ❤\ufe0f you", ["❤\ufe0f"]),
        ("hello", "he\u200dllo", ["he\u200dllo"]),
        ('"good morning"', "Good  morning, good mornings", ["Good  morning"]),
        ('"good morn', "good morn", ["good morn"]),
        ("“你好 吗”", "你好 吗", ["你好 吗"]),
        ("c++", "C++ and c", ["C++"]),
        ("%_\\", None, None),
        ("100%", "100% sure", ["100%"]),
        ("a.b", "a.b axb", ["a.b"]),
        ("c' OR '1", "c' or '1", ["c'", "or", "'1"]),
        ("ал", "Александр", ["Ал"]),
        ("서울", "나는서울에", ["서울"]),
    ],
)
def test_what_is_highlighted(q: str, body: str | None, found: list[str] | None) -> None:
    if body is None:
        with pytest.raises(BadRequest):
            parse(q)
    else:
        assert matches(q, body)
        assert cut(q, body)[1] == found


@pytest.mark.parametrize(
    ("q", "body"),
    [
        ("edis", "redis"),
        ('"red"', "redis"),
        ("存缓", "缓存"),
        ("缓 吗", "缓存"),
        ("a_b", "axb"),
        ("100%", "100 sure"),
        ("你好吗", "你好 吗"),
    ],
)
def test_what_does_not_match(q: str, body: str) -> None:
    assert not matches(q, body)


@pytest.mark.parametrize(
    "q", ["", " ", "!?。,", '""', '"', "a\0b", "x" * 201, "\ud800", " ".join("abcdefghijk"), "\u200d"]
)
def test_a_query_that_asks_for_nothing_or_too_much_is_refused(q: str) -> None:
    with pytest.raises(BadRequest, match=r"^q must"):
        parse(q)


def test_punctuation_beside_words_is_left_out() -> None:
    assert parse("hello !!!") == parse("hello")


def test_a_snippet_shows_the_first_occurrence() -> None:
    body = "长" * 900 + "针" + "长" * 1000
    snippet, found = cut("针", body, 60)
    assert (len(snippet), found) == (60, ["针"])
    assert snippet == body[880:940]
    assert cut("针", "针" + "长" * 100, 60) == ("针" + "长" * 59, ["针"])
    assert cut("针", "长" * 100 + "针", 60) == ("长" * 59 + "针", ["针"])
    # Cut at the end of the snippet, and no more of them than fit.
    assert cut("长长", body, 60) == ("长" * 60, ["长" * 60])


@pytest.mark.parametrize("q", ["aa", '"aa"', "aa aaa"])
def test_long_words_are_not_looked_at_again_from_each_character(q: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def counting(character: str) -> bool:
        nonlocal looked
        looked += 1
        return is_word(character)

    is_word = models._is_word
    snippets = Snippets(parse(q).parts, code_points=120, highlights_max=20)
    monkeypatch.setattr(models, "_is_word", counting)
    assert snippets.matches(f"{'b' + 'a' * 900} {'b' + 'a' * 900} aa aaa, aa a")
    assert looked < 30


def pattern(part: Part) -> str:
    """What a part asks for, as one regular expression."""
    no_word = f"[{SEPARATORS}{UNSPACED}]"
    begin, end = (f"(^|{no_word})" if part.begins else ""), (f"($|{no_word})" if part.ends else "")
    return begin + part.literal.pattern + end


@settings(max_examples=30)
@given(TEXT, TEXT)
def test_a_part_occurs_where_its_pattern_does(q: str, body: str) -> None:
    try:
        parts = parse(q).parts
    except BadRequest:
        return
    folded = fold(body + q + body)
    for part in parts:
        assert bool(list(part.spans(folded))) == bool(re.search(pattern(part), folded))
