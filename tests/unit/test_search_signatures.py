"""Signatures of blocks: no text that matches is left out, few others are let through, and every process sets the same bits."""

import hashlib
import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadRequest
from app.modules.search.blocks import Blocks
from app.modules.search.folding import fold
from app.modules.search.models import parse_query
from app.modules.search.signatures import BITS, Flags, Signer, positions, words_of
from app.modules.search.snippet import Snippets
from bench.corpus import Corpus

CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    st.sampled_from("abcdefgh用做缓存的 \n\"'.ßİﬁ㎏e\u0301\u200d\ufe0f😂각"),
)
TEXT = st.text(CHARACTERS, max_size=40)


def bits(signature: bytes) -> set[int]:
    return {at for at in range(BITS) if signature[at // 8] & 128 >> at % 8}


def signed(signer: Signer, *texts: str) -> bytes:
    flags = Flags()
    for text in texts:
        signer.sign(fold(text), flags)
    return flags.packed()


@given(TEXT, TEXT, st.integers(0, 40), st.integers(1, 20), st.booleans())
def test_a_text_that_matches_has_every_word_of_the_query(
    before: str, body: str, start: int, length: int, quoted: bool
) -> None:
    q = body[start : start + length]
    q = f'"{q}"' if quoted else q
    try:
        query = parse_query(q, max_code_points=200, max_parts=20)
    except BadRequest:
        return
    assert query.words
    snippets = Snippets(query.parts, code_points=120, highlights_max=20)
    for text in (body, before + body, f"{body}\n{before}", f"{before} {q} {before}"):
        folded = fold(text)
        if snippets.matches(folded):
            assert set(query.words) <= words_of(folded), (q, text)


@given(st.lists(TEXT, max_size=4))
def test_signing_sets_the_bits_of_the_words(texts: list[str]) -> None:
    words = {word for text in texts for word in words_of(fold(text))}
    assert bits(signed(Signer(), *texts)) == {position for word in words for position in positions(word)}


def bits_of_run(run: str) -> set[int]:
    """One character after the other, as `positions` makes them of all at once."""
    found = set()
    for one, following in zip(map(ord, run), [*map(ord, run[1:]), 0], strict=True):
        alone, pair, third = one * 0x5BD1E995, one * 0x5BD1E995 + following * 0x7FEB352D, one * 0x68E31DA5
        found |= {code >> shift & BITS - 1 for code, shift in product((alone, pair), (22, 38))} | {
            third >> 22 & BITS - 1
        }
    return found


@given(
    st.text(
        st.one_of(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), st.sampled_from("😂각のก𠮷")), min_size=3
    )
)
def test_the_bits_of_a_run_are_those_of_its_characters_and_pairs(run: str) -> None:
    assert set(positions(run)) == bits_of_run(run)


@pytest.mark.parametrize(
    "text", ["长" * 2000, "x" * 2000, "".join(chr(0x4E00 + n) for n in range(2000)), "é ß ﬁ " * 300]
)
def test_long_texts_are_signed_in_full(text: str) -> None:
    expected = {position for word in words_of(fold(text)) for position in positions(word)}
    assert bits(signed(Signer(), "短文", text)) >= expected


def test_what_is_stored_keeps_its_meaning() -> None:
    """Signatures of yesterday are compared with queries of tomorrow: with other bits nothing would be found any more."""
    signature = signed(Signer(), "今天用Redis做缓存, good morning 😂")
    assert hashlib.sha256(signature).hexdigest() == "1422a7e8a8031213124277e4e5638155b10b16a94bbbc94d3deaa87ff286d518"


def test_blocks_are_closed_when_they_are_full() -> None:
    blocks = Blocks(Signer(), messages_max=3, words_max=100)
    blocks.begin(7, 10, (9, 50))
    for seq, text in enumerate(["one", "two", "three", "长" * 101, "four"], 11):
        blocks.add(seq, 1000 - seq, text)
    blocks.begin(8, 0, None)
    blocks.add(1, 5, "")
    found = [(b.group_id, b.first_seq, b.last_seq, b.first_id, b.last_id) for b in blocks.filled]
    assert found == [
        (7, 9, 11, 989, 989),
        (7, 12, 13, 987, 988),
        (7, 14, 14, 986, 986),
        (7, 15, 15, 985, 985),
        (8, 1, 1, 5, 5),
    ]
    assert blocks.filled[-1].words == 0


def test_few_blocks_are_looked_at_in_vain() -> None:
    corpus, signer, chance = Corpus(3), Signer(), random.Random(3)  # noqa: S311 - must be repeatable
    texts = [fold(corpus.message()) for _ in range(3200)]
    signatures = [bits(signed(signer, *texts[at : at + 32])) for at in range(0, len(texts), 32)]
    vain = looked = 0
    for _ in range(200):
        text = chance.choice(texts)
        start = chance.randrange(len(text))
        try:
            query = parse_query(text[start : start + 4].replace('"', " "), max_code_points=200, max_parts=10)
        except BadRequest:
            continue
        snippets = Snippets(query.parts, code_points=120, highlights_max=20)
        asked = {position for word in query.words for position in positions(word)}
        for at, signature in enumerate(signatures):
            held = any(map(snippets.matches, texts[32 * at : 32 * at + 32]))
            assert not held or asked <= signature
            looked += not held
            vain += not held and asked <= signature
    assert vain < looked * 0.05
