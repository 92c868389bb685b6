"""Words and punctuation marks are split as spaCy's blank Portuguese pipeline splits them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data.stages import words
from ptbr_slm.data.stages.words import split_words

# What spaCy 3.8.18 answers: [token.text for token in spacy.blank("pt")(text) if token.text.strip()]
SPLIT = {
    "guarda-chuva": ["guarda-chuva"],
    "R$10,00 (dez).": ["R$", "10,00", "(", "dez", ")", "."],
    "etc.)": ["etc.", ")"],
    "fim.a.": ["fim.a", "."],
    "São Paulo-SP/RJ": ["São", "Paulo-SP", "/", "RJ"],
    "10.406/2002": ["10.406/2002"],
    "'tá": ["'", "tá"],
    "pára-raios.": ["pára-raios", "."],
    "d'água": ["d'água"],
    "e/ou": ["e/ou"],
    "http://x.com/a-b": ["http://x.com/a-b"],
    "a@b.com": ["a@b.com"],
    "50%": ["50", "%"],
    "US$5": ["US$", "5"],
    "a:b": ["a", ":", "b"],
    "3km": ["3", "km"],
    "A.B.": ["A.B."],
    "AB.": ["AB", "."],
    "casa...": ["casa", "..."],
    "...casa": ["...", "casa"],
    "*negrito*": ["*", "negrito", "*"],
    "x\n\ny": ["x", "y"],
    "bom :)": ["bom", ":)"],
    "Sim!!!": ["Sim", "!", "!", "!"],
    "—Olá": ["—", "Olá"],
    "olá—mundo": ["olá", "—", "mundo"],
    "10-20": ["10-20"],
    "[1]": ["[", "1", "]"],
    "C++": ["C++"],
    "a;b": ["a;b"],
    "a|b": ["a|b"],
    "(veja):": ["(", "veja", "):"],
}


@pytest.mark.parametrize("text", SPLIT)
def test_tokens_are_those_of_spacy(text: str):
    assert split_words(text) == SPLIT[text]


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("abé Ãº.,:;-—/()'\"\n\t1$%…•🙂_"), max_size=60))
def test_no_character_is_lost_but_spaces(text: str):
    assert "".join(split_words(text)) == "".join(text.split())


def test_the_memory_of_pieces_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(words, "MAX_CACHED", 100)
    text = " ".join(f"palavra{number}," for number in range(1000))
    assert split_words(text) == split_words(text)
    assert len(words._cached) <= 100
