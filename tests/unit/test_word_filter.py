# ruff: noqa: RUF001 - letters that look like others are the point
"""The word filter finds a word however it is typed, masks exactly the word, and follows its file."""

import asyncio
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.errors import ConfigError
from app.modules.moderation.folding import fold, letters_of
from app.modules.moderation.word_filter import Mode, WordFilter
from app.modules.moderation.word_list import WordList

WORDS = ("badword", "café", "坏词", "ガラス", "слово", "나쁜말", "straße", "two words")
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u034f\u180e\u202e\ufe0f\U000e0041\u0001\u3164"
MARKS = "\u0301\u0308\u0323\u0336\u20dd"


def bent(word: str, data: st.DataObject) -> str:
    """The word as somebody might type it to get around the filter."""
    pieces = []
    for character in word:
        choices = [character, character.upper(), character.lower(), character.translate(FULL_WIDTH)]
        choices += [unicodedata.normalize("NFD", character), unicodedata.normalize("NFKD", character)]
        pieces.append(data.draw(st.sampled_from(choices)))
        pieces.append(data.draw(st.text(INVISIBLE, max_size=2)))
        if not character.isspace():
            pieces.append(data.draw(st.text(MARKS, max_size=2)))
    return unicodedata.normalize("NFC", "".join(pieces))


@given(st.sampled_from(WORDS), st.data())
def test_no_typing_gets_around_the_list(word: str, data: st.DataObject) -> None:
    words = WordList(WORDS)
    text = "a " + bent(word, data) + " b"
    assert words.occurs_in(text)
    (span,) = set(words.spans_in(text))
    start, end = span
    assert start == 2
    assert not text[end:].lstrip(INVISIBLE + MARKS + " ").rstrip("b")


@pytest.mark.parametrize(
    "text",
    [
        "ＢＡＤＷＯＲＤ", "BadWord", "b\u200ba\u200bd\u200bw\u200bo\u200br\u200bd", "b\u0301a\u0336dword", "𝐛𝐚𝐝𝐰𝐨𝐫𝐝", "ⓑⓐⓓⓦⓞⓡⓓ",
        "xbadwordx", "STRASSE", "ｶﾞﾗｽ", "カ\u3099ラス", "坏\u200d词", "СЛОВО",
    ],
)  # fmt: skip
def test_finds(text: str) -> None:
    assert WordList(WORDS).occurs_in(text)


@pytest.mark.parametrize(
    "text", ["", "bad word", "cafe", "カラス", "坏 词", "나쁜마", "나쁜맑", "two  words", "goodword"]
)
def test_does_not_find(text: str) -> None:
    assert not WordList(WORDS).occurs_in(text)


def test_a_word_with_an_accent_is_found_only_with_it_and_one_without_always() -> None:
    with_accent, without = WordList(["schön"]), WordList(["schon"])
    assert [with_accent.occurs_in(text) for text in ("schön", "scho\u0308\u0336n", "schon")] == [True, True, False]
    assert [without.occurs_in(text) for text in ("schön", "schon")] == [True, True]
    assert WordList(["schön", "schon"]).occurs_in("schon")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a badword, a BADWORD", "a *******, a *******"),
        ("b\u200bad\u200bword\u200b!", "**********!"),
        ("x坏词y", "x**y"),
        ("ｶﾞﾗｽ の 花", "**** の 花"),
        ("ca\u0336fé!", "*****!"),
        ("STRASSE ﬆraße", "******* *****"),
        ("nothing", None),
    ],
)
def test_masks_exactly_the_word(text: str, masked: str | None) -> None:
    spans = WordList(WORDS).spans_in(text)
    characters = list(text)
    for start, end in spans:
        characters[start:end] = "*" * (end - start)
    assert "".join(characters) == (masked or text)


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_folding_says_where_each_letter_came_from(text: str) -> None:
    folded = fold(text)
    assert folded.letters == letters_of(text)
    assert len(folded.spans) == len(folded.marks) == len(folded.letters)
    assert all(0 <= start < end <= len(text) for start, end in folded.spans)
    assert folded.spans == sorted(folded.spans)


@given(st.text("ab坏é\u0301\u200bｂ\u1100\u1161\u11a8ｶﾞ", max_size=12), st.text("ab坏é가ガ", min_size=1, max_size=3))
def test_a_masked_text_is_as_long_and_clean(text: str, word: str) -> None:
    text = unicodedata.normalize("NFC", text)
    assume(letters_of(word))
    masked = masking([word]).filtered(text)
    assert masked is not None
    assert len(masked) == len(text)
    assert unicodedata.is_normalized("NFC", masked)
    assert not WordList([word]).occurs_in(masked)


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.lists(st.text(max_size=6), max_size=5))
def test_any_list_takes_any_text(text: str, words: list[str]) -> None:
    listed = WordList(words)
    assert listed.occurs_in(text) == bool(listed.spans_in(text))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def masking(words: list[str]) -> WordFilter:
    word_filter = WordFilter("", "mask", reload_s=1, file_max_bytes=1000)
    word_filter._words = WordList(words)
    return word_filter


# The file


def filter_of(file: Path, mode: Mode = "reject") -> WordFilter:
    return WordFilter(str(file), mode, reload_s=0.01, file_max_bytes=1000)


def write(file: Path, content: bytes) -> None:
    """As editors do: a new file takes the name of the old one."""
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.replace(file)


async def test_verdicts(tmp_path: Path) -> None:
    file = tmp_path / "words"
    file.write_bytes("\ufeff# a comment\r\n\r\n  badword  \r\n坏词\n\u200b\n".encode())
    rejecting, masking = filter_of(file), filter_of(file, "mask")
    await rejecting.load()
    await masking.load()
    assert rejecting.filtered("a BADWORD") is None
    assert masking.filtered("a BADWORD") == "a *******"
    for word_filter in (rejecting, masking):
        assert word_filter.filtered("# a comment") == "# a comment"
    assert [rejecting.filtered("坏词"), masking.filtered("坏词"), masking.filtered("fine")] == [None, "**", "fine"]


async def test_without_a_file_everything_passes() -> None:
    word_filter = WordFilter("", "reject", reload_s=1, file_max_bytes=1000)
    await word_filter.load()
    assert word_filter.filtered("badword") == "badword"


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * 1001])
async def test_a_first_list_that_cannot_be_read_is_an_error_in_the_settings(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "words"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"moderation\.words_file"):
        await filter_of(file).load()


async def test_follows_the_file_and_keeps_the_old_list_while_it_is_broken(tmp_path: Path) -> None:
    with capture_logs() as logs:
        await follow(tmp_path / "words", lambda: [entry["event"] for entry in logs].count("word_list_not_loaded"))


async def follow(file: Path, failures: Callable[[], int]) -> None:
    file.write_text("first\n")
    word_filter = filter_of(file)
    await word_filter.load()
    task = asyncio.ensure_future(word_filter.run())
    try:
        write(file, b"second\n")
        await until(lambda: word_filter.filtered("second") is None)
        assert word_filter.filtered("first") == "first"
        for failed_before, broken in enumerate((b"\xff\xfe\n", b"x" * 1001)):
            write(file, broken)
            await until(lambda: failures() > failed_before)  # noqa: B023 - done within the turn
            assert word_filter.filtered("second") is None
        file.unlink()
        await until(lambda: failures() > 2)
        assert word_filter.filtered("second") is None
        write(file, b"third\n")
        await until(lambda: word_filter.filtered("third") is None)
        # Written in place, as `echo >> words` does.
        with file.open("ab") as appended:
            appended.write(b"fourth\n")
            os.fsync(appended.fileno())
        await until(lambda: word_filter.filtered("fourth") is None)
    finally:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
