"""Items of an evaluation set are found in documents, with one word of difference, and with both texts."""

from __future__ import annotations

import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_copies import random_text

from ptbr_slm.data.decontamination.evaluation_sets import EvaluationItem
from ptbr_slm.data.decontamination.overlaps import EvaluationIndex

QUESTION = (
    "Qual das frases abaixo descreve melhor o costume de guardar a última fatia do bolo de fubá "
    "para quem chega tarde da feira?"
)


def index_of(*texts: str) -> EvaluationIndex:
    return EvaluationIndex(EvaluationItem(f"prova.jsonl:{i}", text) for i, text in enumerate(texts, 1))


def around(text: str, seed: int = 0) -> str:
    pick = random.Random(seed)
    return f"{random_text(pick, 50)}. {text} {random_text(pick, 50)}."


def changed(text: str, position: int, *replacement: str) -> str:
    words = text.split()
    words[position : position + 1] = replacement
    return " ".join(words)


@pytest.mark.parametrize(
    ("text", "words", "mismatches"),
    [
        (QUESTION, 23, 0),
        (QUESTION.upper().replace(" ", "\n"), 23, 0),
        (
            "qual das frases abaixo descreve melhor o costume de guardar a ultima fatia—do bolo",
            15,
            0,
        ),
        (changed(QUESTION, 11, "primeira"), 22, 1),
        (changed(QUESTION, 11), 22, 1),
        (changed(QUESTION, 11, "última", "grande"), 23, 1),
    ],
)
def test_an_item_is_found_however_it_is_written_and_with_a_word_of_difference(
    text: str, words: int, mismatches: int
):
    document = around(text)
    (overlap,) = index_of("outra coisa", QUESTION).search(document)
    assert overlap.item == "prova.jsonl:2"
    assert (overlap.words, overlap.mismatches) == (words, mismatches)
    assert overlap.document_text in document and overlap.item_text in QUESTION
    assert overlap.document_text in document[overlap.start : overlap.end]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ".join(QUESTION.split()[:12]),
        changed(changed(changed(QUESTION, 5, "x"), 10, "y"), 16, "z"),
        " ".join(reversed(QUESTION.split())),
    ],
)
def test_a_shorter_run_or_more_differences_are_no_overlap(text: str):
    assert index_of(QUESTION).search(around(text)) == []


def test_short_items_must_be_there_as_a_whole_and_the_shortest_are_not_looked_for():
    nine = "o pescador guardou a rede velha atrás da igreja"
    index = index_of(nine, "a menina desenhou o mar", "A menina desenhou o mar!")
    assert index.too_short == 1 and len(index.items) == 1
    assert [overlap.words for overlap in index.search(around(nine))] == [9]
    assert index.search(around(changed(nine, 8, "capela"))) == []
    assert index.search(around("a menina desenhou o mar")) == []


def test_what_many_items_say_is_their_formula_and_not_a_hit():
    formula = "assinale a alternativa que está de acordo com o texto que você acabou de ler"
    pick = random.Random(1)
    questions = [f"{random_text(pick, 15)} {formula}" for _ in range(12)]
    index = index_of(*questions)
    assert index.search(around(formula)) == []
    assert [overlap.item for overlap in index.search(around(questions[4]))] == ["prova.jsonl:5"]


def test_a_hit_is_a_record_with_both_texts():
    (overlap,) = index_of(QUESTION).search(f"Antes disso. {QUESTION}")
    assert overlap.record("a.txt:3") == {
        "source": "a.txt:3",
        "item": "prova.jsonl:1",
        "item_text": QUESTION,
        "document_text": QUESTION,
        "words": 23,
        "mismatches": 0,
        "start": 13,
        "end": 13 + len(QUESTION),
    }


def test_an_index_goes_to_another_process():
    index = pickle.loads(pickle.dumps(index_of(QUESTION)))
    assert len(index.search(around(QUESTION))) == 1


def test_an_index_of_nothing_finds_nothing():
    assert index_of().search(around(QUESTION)) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 27), st.sampled_from(["none", "replace", "add", "remove"]))
def test_thirteen_words_with_one_changed_are_found_anywhere(seed: int, position: int, change: str):
    pick = random.Random(seed)
    item = random_text(pick, 40)
    start = pick.randrange(12)
    words = item.split()[start : start + 28]
    if change == "replace":
        words[position] = "zzz"
    elif change == "add":
        words.insert(position, "zzz")
    elif change == "remove":
        del words[position]
    found = index_of(item).search(f"{random_text(pick, 30)} {' '.join(words)} {random_text(pick, 30)}")
    assert found and max(overlap.words for overlap in found) >= 13
