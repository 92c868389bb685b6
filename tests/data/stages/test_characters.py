"""Letters of another alphabet inside Latin words, doubled accents, and the marks of an editor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.data.stages.characters import (
    remove_doubled_accents,
    remove_editors_marks,
    repair_mixed_scripts,
)
from ptbr_slm.data.stages.clean import clean


@pytest.mark.parametrize(
    ("mixed", "latin"),
    [
        ("\u0421asa", "Casa"),
        ("pr\u043eblema", "problema"),
        ("\u0420\u043ertugal e \u0391mérica", "Portugal e América"),
        ("histó\u0433ia", "histó\u0433ia"),
    ],
)
def test_look_alikes_become_latin_where_the_whole_word_does(mixed: str, latin: str):
    assert repair_mixed_scripts(mixed) == latin


@pytest.mark.parametrize(
    "text",
    [
        "kΩ, ΔH, μm, κB, ΔNox, TΔS, ρV",
        "Москва é a capital",
        "αβ-bloqueador",
        "Cass\u0430\u043d\u0434\u0440\u0430",
        "ψυχή",
    ],
)
def test_units_formulas_and_words_of_other_languages_stay(text: str):
    assert repair_mixed_scripts(text) == text


@given(st.text(st.sampled_from("abcéAО\u0430\u0441\u043dαΩ -")))
def test_only_letters_change_and_only_once(text: str):
    once = repair_mixed_scripts(text)
    assert len(once) == len(text) and repair_mixed_scripts(once) == once


def test_the_repair_is_told():
    assert clean("A \u0421asa amarela.").repairs == ("mixed_scripts",)


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        ("ser\u00e1\u0301 sem \u00f4\u0302nus", "ser\u00e1 sem \u00f4nus"),
        (
            "\u041c\u043e\u0301\u043b\u043e\u0442\u043e\u0432",
            "\u041c\u043e\u0301\u043b\u043e\u0442\u043e\u0432",
        ),
        ("sem acento", "sem acento"),
    ],
)
def test_an_accent_twice_on_a_letter_is_written_once(text: str, repaired: str):
    assert remove_doubled_accents(text) == repaired


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (
            "os preceitos [$deste Código$], do [#Estatuto da OAB#]",
            "os preceitos deste Código, do Estatuto da OAB",
        ),
        (
            "no [$§ 1º$] e [$(art. 34, XXI)$], o [#Estatuto#, e só",
            "no § 1º e (art. 34, XXI), o Estatuto, e só",
        ),
        ("o vetor [$x_i$] e [$\\frac{a}{b}$]", "o vetor [$x_i$] e [$\\frac{a}{b}$]"),
        ("um [#título] e US[$ 30]", "um [#título] e US[$ 30]"),
    ],
)
def test_the_marks_of_an_editor_go_and_formulas_stay(text: str, repaired: str):
    assert remove_editors_marks(text) == repaired
