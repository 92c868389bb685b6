"""The figures that rules look at, against the definitions written out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.figures import FIGURES, Figures, Text, measure
from ptbr_slm.data.stages.repetitions import Repetitions


def top_share(tokens: list[str], n: int, characters: int) -> float:
    """Gopher's most frequent n-gram as datatrove counts it."""
    grams = Counter(" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    if not grams:
        return 0.0
    gram, count = grams.most_common(1)[0]
    return len(gram) * count / characters


def repeated_share(tokens: list[str], n: int, characters: int) -> float:
    """Gopher's repeated n-grams as datatrove counts them."""
    seen, total, place = set(), 0, 0
    while place <= len(tokens) - n:
        gram = tuple(tokens[place : place + n])
        if gram in seen:
            total += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return total / characters


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["a", "de", "casa", ",", "é"]), min_size=1, max_size=80))
def test_repetitions_are_those_of_the_definition(tokens: list[str]):
    characters = len(" ".join(tokens))
    numbers = np.array([sorted(set(tokens)).index(token) for token in tokens])
    repetitions = Repetitions(numbers, np.array([*map(len, tokens)], np.int32), characters)
    for n in range(2, 5):
        assert repetitions.top_share(n) == top_share(tokens, n, characters)
    for n in range(2, 11):
        assert repetitions.repeated_share(n) == repeated_share(tokens, n, characters)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("words", "Um, dois; três!", 3),
        ("mean_word_length", "Um, dois.", 3),
        ("alphabetic_tokens", "Um 2 , três", 0.5),
        ("stop_words", "De a a E foi", 2),
        ("hashes_per_token", "# um dois três", 0.25),
        ("ellipses_per_token", "um… dois...", 0.5),
        ("bullet_lines", "- um\n  • dois\ntrês\nquatro", 0.5),
        ("ellipsis_lines", "um...\ndois… \ntrês\nquatro", 0.5),
        ("ended_lines", "Um.\n\nDois?\n“Três.”\nquatro", 0.5),
        ("short_lines", "curta\n" + "comprida " * 9, 0.5),
        ("newlines_per_token", "um\ndois", 0.5),
        ("repeated_lines", "um\ndois\n\num\num", 0.5),
        ("repeated_characters", "um\num\nnove", 0.25),
        ("curly_brackets", "{a} {b}", 2),
        ("lorem_ipsum", "Lorem Ipsum", 1),
        ("long_lines", "a" * 200 + "\n" + "b" * 199, 1),
        ("replacement_characters", "n\ufffdo ", 0.25),
    ],
)
def test_each_figure(name: str, text: str, value: float):
    assert FIGURES[name](Text(text)) == pytest.approx(value)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=50))
def test_any_text_can_be_measured_and_the_stage_stores_what_a_rule_would_measure(text: str):
    document = Document(text, "a.txt")
    tagged = Figures()(document)
    assert set(tagged.attributes) == set(FIGURES)
    assert all(measure(name, document) == tagged.attributes[name] for name in FIGURES)


def test_a_stored_figure_is_not_measured_again():
    assert measure("words", Document("um dois", "a.txt", attributes={"words": 70})) == 70
