"""The spelling that a text follows is an attribute; nothing is dropped."""

from __future__ import annotations

import pytest
from page_text import PAGE

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.spelling import Spelling, spelling_of


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("Elle foi á pharmacia e depois ao theatro, hontem.", "before_1943"),
        ("Êle pôs a côr sôbre a tela, sòmente isto.", "before_1971"),
        ("A idéia tranqüila de um vôo freqüente.", "before_2009"),
        ("A ideia tranquila de um voo frequente.", "current"),
        (PAGE, "current"),
        (PAGE * 10 + "Na placa velha lia-se pharmacia.", "current"),
        ("O pinguim e a linguiça: ü não há; pêra, pára.", "current"),
        ("", "current"),
    ],
)
def test_the_oldest_spelling_that_enough_words_follow(text: str, spelling: str):
    assert spelling_of(text) == spelling


def test_the_stage_stores_it():
    document = Spelling()(Document("Elle e ella", "a.txt"))
    assert document.attributes == {"spelling": "before_1943"} and document.text == "Elle e ella"
