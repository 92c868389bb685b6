"""Sentences that repeat an evaluation set go out; a document that is mostly the set goes out whole."""

from __future__ import annotations

import random

import pytest
from planted_copies import random_text

from ptbr_slm.data.decontamination.evaluation_sets import EvaluationItem
from ptbr_slm.data.decontamination.overlaps import EvaluationIndex
from ptbr_slm.data.document import REASONS, REPAIRS, Document
from ptbr_slm.data.stages.decontaminate import Decontaminate
from ptbr_slm.data.stages.stage import Dropped, run

SENTENCE = "O tocador de viola da praça afinou as cordas antes da chuva que caiu de tarde no largo da matriz."
STAGE = Decontaminate(EvaluationIndex([EvaluationItem("prova.txt:1", SENTENCE)]))
A, B, C = (random_text(random.Random(seed), 40).capitalize() + "." for seed in range(3))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"{A} {SENTENCE} {B}", f"{A} {B}"),
        (f"{A} {B} {SENTENCE}\n\n{C}", f"{A} {B}\n\n{C}"),
        (f"{A}\n\n{SENTENCE}\n\n{B}", f"{A}\n\n{B}"),
        (f"{A}\n{SENTENCE}\n{B}", f"{A}\n{B}"),
        (f"{A} {B}\n\n{SENTENCE}", f"{A} {B}"),
        (f"{SENTENCE}\n\n{A} {B}", f"{A} {B}"),
        (f"{A}\n\n{SENTENCE} {SENTENCE} {B} {C}", f"{A}\n\n{B} {C}"),
    ],
)
def test_the_sentence_goes_out_and_the_paragraphs_stay_as_they_are(text: str, kept: str):
    result = STAGE(Document(text, "a.txt"))
    assert isinstance(result, Document) and result.text == kept
    assert result.attributes["repairs"] == "decontaminated" and "decontaminated" in REPAIRS


def test_a_document_that_is_mostly_the_set_goes_out_with_the_figures():
    result = STAGE(Document(f"{SENTENCE} E nada mais.", "a.txt"))
    assert isinstance(result, Dropped) and result.reason == "contaminated" and "contaminated" in REASONS
    assert result.figures["overlaps"] == 1 and result.figures["share"] > result.figures["most_share"] == 0.3


def test_both_texts_are_shown_of_what_is_cut_and_of_what_is_dropped():
    shown = {
        "overlaps": 1,
        "overlap_item": "prova.txt:1",
        "overlap_item_text": SENTENCE,
        "overlap_document_text": SENTENCE,
    }
    cut = STAGE(Document(f"{A} {SENTENCE} {B}", "a.txt", attributes={"language": "pt"}))
    assert isinstance(cut, Document)
    assert dict(cut.attributes) == {"language": "pt", "repairs": "decontaminated", **shown}
    result = run((STAGE,), Document(SENTENCE, "a.txt", attributes={"language": "pt"}))
    assert isinstance(result, tuple) and dict(result[0].attributes) == {"language": "pt", **shown}
    assert result[0].text == SENTENCE and result[2].reason == "contaminated"


def test_a_document_without_an_overlap_is_the_same_object():
    assert STAGE(document := Document(f"{A}\n{B}", "a.txt")) is document
