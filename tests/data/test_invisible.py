"""Soft hyphens, zero-width characters and ligatures of PDFs go, are counted, and take nothing with them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data.clean import normalize
from ptbr_slm.data.drops import DropCounts
from ptbr_slm.data.invisible import INVISIBLE

PROSE = (
    "O homem que caminhava pela estrada de terra batida não sabia se a tra\xad\n"
    "dução do livro que levava consigo era boa ou ruim, mas ca\xad\n"
    "minhava assim mesmo, com passo firme e olhar distante, enquanto o\n"
    "sol descia devagar atrás das montanhas e a noite chegava mansa,\n"
    "cheia de estrelas e de silêncios que ninguém mais saberia ouvir\n"
    "como ele ouvia."
)


def cleaned(text: str) -> tuple[str | None, dict[str, int]]:
    drops = DropCounts()
    return normalize(text, drops, "a.txt"), dict(drops.repaired)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("A tra\xad\ndução boa.", "A tradução boa."),
        ("A tra\xad  \r\n   dução boa.", "A tradução boa."),
        ("A tra\xad dução boa.", "A tradução boa."),
        ("A tra\xaddu\xadção boa.", "A tradução boa."),
        ("No fim\xad\n\nOutro parágrafo.", "No fim\n\nOutro parágrafo."),
        ("Preço\xad: 10 reais.", "Preço: 10 reais."),
    ],
)
def test_a_soft_hyphen_leaves_a_whole_word(text: str, whole: str):
    found, repaired = cleaned(text)
    assert found == whole and repaired["invisible"] == 1


def test_a_soft_hyphen_at_a_lines_end_joins_the_lines_of_wrapped_prose():
    found, repaired = cleaned(PROSE)
    assert found == PROSE.replace("\xad\n", "").replace("\n", " ")
    assert repaired == {"invisible": 1, "unwrapped": 1}


@pytest.mark.parametrize("mark", ["\u200b", "\u200b\u200b", "\u2060", "\u200e", "\u202a", "\u200c", "\u200d"])
def test_zero_width_characters_are_taken_out_of_words_and_counted(mark: str):
    assert cleaned(f"valores passa{mark}dos {mark}aqui{mark}") == ("valores passados aqui", {"invisible": 1})


@pytest.mark.parametrize(
    "text", ["A família 👨\u200d👩\u200d👧 veio.", "Amor ❤️\u200d🔥 sem fim.", "می\u200cخواهم e nós."]
)
def test_joiners_that_join_stay(text: str):
    assert cleaned(text) == (text, {})


def test_ligatures_of_pdfs_become_letters_and_are_counted():
    assert cleaned("O ﬁm do aﬂuente, o oﬀ e o eﬃcaz.") == (
        "O fim do afluente, o off e o efficaz.",
        {"ligatures": 1},
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["a", "é", "tra", "\xad", " ", "\n", "\n\n", "\u200b", "\u200d", ".", "👨"])))
def test_cleaned_text_stays_as_it_is_when_cleaned_again(pieces: list[str]):
    once, _ = cleaned("".join(pieces))
    if once is not None:
        assert cleaned(once)[0] == once
        assert set(INVISIBLE.findall(once)) <= {"\u200d"}
