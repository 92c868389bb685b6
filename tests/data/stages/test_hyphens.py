"""Words that a margin parted are made whole where that is certain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.hyphens import JoinSplitWords, join_split_words


@pytest.mark.parametrize(
    ("parted", "whole"),
    [
        ("a ami¬zade e o in¬ feliz", "a amizade e o infeliz"),
        ("dizia- lhe que via- se bem, preservá- lo", "dizia-lhe que via-se bem, preservá-lo"),
        ("retirá-la- ia, dar-se-á, far-lhe- emos", "retirá-la-ia, dar-se-á, far-lhe-emos"),
        ("As encomendas: eram encomen- das de Lisboa.", "As encomendas: eram encomendas de Lisboa."),
        ("Um guarda-chuva. Outro guarda- chuva.", "Um guarda-chuva. Outro guarda-chuva."),
        (
            "Caminhava. Ele cami-\nnhava só, e caminhava.",
            "Caminhava. Ele caminhava\nsó, e caminhava.".replace("\nsó", "\n só"),
        ),
    ],
)
def test_certain_words_are_joined(parted: str, whole: str):
    assert join_split_words(parted) == whole


@pytest.mark.parametrize(
    "text",
    [
        "o pré- e o pós-guerra, o pré-guerra",
        "micro- e macroeconomia",
        "encomen- das de Lisboa",
        "Ele veio- disse ela.",
        "- item\n- outro",
        "p¬q",
    ],
)
def test_what_could_be_meant_stays(text: str):
    assert join_split_words(text) == text


@given(st.text(st.sampled_from("abcé-¬ \n.")))
def test_no_letter_is_lost(text: str):
    joined = join_split_words(text)
    assert [c for c in joined if c.isalpha()] == [c for c in text if c.isalpha()]


def test_the_repair_is_told_and_a_good_text_is_the_same_object():
    document = Document("dizia- lhe", "a.txt")
    assert JoinSplitWords()(document).attributes == {"repairs": "split_words"}
    good = Document("dizia-lhe", "a.txt")
    assert JoinSplitWords()(good) is good
