"""Words and n-grams have the same hash wherever they stand, and different ones otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data import word_hashes as module
from ptbr_slm.data.word_hashes import ngram_hashes, normalized_words, word_hashes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("À Avó, em 1999: “não-sei”!", "a avo em 1999 nao sei"),
        ("fim—começo…meio", "fim comeco meio"),
        ("ﬁm ção ÇÃO", "fim cao cao"),
        ("  \n\t ", ""),
    ],
)
def test_words_lose_case_accents_and_punctuation(text: str, words: str):
    assert normalized_words(text).decode().split() == words.split()


def test_digits_are_folded_where_asked():
    assert normalized_words("Em 28/11/2026", fold_digits=True).split() == [b"em", b"00", b"00", b"0000"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abc1 ", min_size=1, max_size=8), max_size=30))
def test_equal_words_have_equal_hashes_and_different_words_do_not(parts: list[str]):
    text = " ".join(parts).encode()
    words = text.split()
    hashes = word_hashes(text)
    assert len(hashes) == len(words)
    assert len(set(hashes.tolist())) == len(set(words))
    grams = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    assert len(ngram_hashes(hashes, 3)) == len(grams)
    assert len(set(ngram_hashes(hashes, 3).tolist())) == len(set(grams))


def test_a_long_text_is_hashed_as_its_words_alone():
    text = b" ".join(b"palavra%d" % (i % 97) for i in range(30_000))
    whole = word_hashes(text)
    assert np.array_equal(whole, np.tile(word_hashes(b" ".join(text.split()[:97])), 310)[:30_000])
    assert len(word_hashes(b"a" * 200_000)) == 4 and module._PIECE == 65_536


def test_the_hashes_are_these_on_every_machine():
    hashes = word_hashes(normalized_words("Minha avó guardou o violão ontem à noite."))
    assert (
        f"{int(hashes[0]):016x} {int(ngram_hashes(hashes, 5)[-1]):016x}"
        == "28eb87746738c40c a9990bfb000a624c"
    )
