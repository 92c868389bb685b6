"""Letters that a wrong encoding spoiled come back, and good Portuguese is never touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_text import PAGE

from ptbr_slm.data.stages.clean import clean
from ptbr_slm.data.stages.encoding import repair_controls, repair_lost, repair_mojibake

UNASSIGNED = (0x81, 0x8D, 0x8F, 0x90, 0x9D)
LETTERS = "abceiosmçãõáéíóúâêôàü"
MARKS = (
    " ",
    ", ",
    ". ",
    "? ",
    "” ",
    " “",
    "» ",
    " «",
    "’ ",
    " ‘",
    " – ",
    "—",
    "… ",
    "\xa0",
    " 2º ",
    " § ",
    "\n",
    "-",
)
"""What stands between two words of good text."""


def misread(text: str, times: int, encoding: str) -> str:
    """`text` as UTF-8 that was read in `encoding`, over and over."""
    for _ in range(times):
        data = text.encode()
        text = "".join(chr(byte) if byte in UNASSIGNED else bytes([byte]).decode(encoding) for byte in data)
    return text


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize(
    "text",
    [
        "Preparação",
        "não",
        "São Paulo",
        "AÇÃO DE GRAÇAS",
        "É",
        "Às três da manhã, à noite",
        "Ímpar e Ó e À",
        "“sim” – não… ‘ou’",
        "5º, 3ª e § 2",
        "El niño è già lì, où?",
        *PAGE.strip().split("\n"),
    ],
)
def test_what_was_encoded_once_or_more_comes_back(text: str, times: int, encoding: str):
    assert repair_mojibake(misread(text, times, encoding)) == text


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from(LETTERS), min_size=2, max_size=8),
            st.sampled_from([str.lower, str.capitalize, str.upper]),
            st.sampled_from(MARKS),
        ).filter(lambda parts: not parts[0].startswith("ã") and not parts[0].endswith("â"))
    )
)
def test_good_text_is_never_touched(parts: list[tuple[str, Callable[[str], str], str]]):
    text = "".join(case(word) + mark for word, case, mark in parts)
    assert repair_mojibake(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "SÃO PAULO, AMANHÃ, ÀS 15h.",
        "Gritou: “MINHA IRMÔ, e saiu.",
        "«A CRISTû é um romance; «A IRMû também.",
        "‘MANHÒ e “AMANHÔ — disse.",
        "MANHÃ… e a MAÇÃ?",
        "O Â é uma letra. Ô de casa! O til: Ã.",
        "A nota “Â” e o Ã, nesta ordem.",
        "VENDE-SE GALPÃO\xa0NOVO, MANHÃ\xa0E TARDE",
        "Os preços em €: 10 €; âncora, ânsia, â.",
        "CANÇÕES, LIÇÕES, PÃES, MÃE, CÃIBRA, ROMÃ",
        "n° 5, Nº 7, 3ª via, § 2º",
    ],
)
def test_known_false_positives_stay(text: str):
    assert repair_mojibake(text) == text
    assert repair_lost(text) == text and repair_controls(text) == text


def test_only_the_broken_lines_change():
    assert repair_mojibake("MANHÃ “boa”\nnÃ£o\nÂncora") == "MANHÃ “boa”\nnão\nÂncora"


def test_windows_punctuation_read_as_latin_1_comes_back():
    assert repair_controls("\x93sim\x94 \x96 n\xe3o\x85") == "“sim” – não…"
    assert repair_controls("linha\x85outra") == "linha\x85outra"
    assert clean("Disse \x93sim\x94.").repairs == ("windows_1252",)
    assert clean("\x93\x94\x80\x91" * 9).dropped == "binary"


@pytest.mark.parametrize(
    ("lost", "whole"),
    [
        ("n\ufffdo", "não"),
        ("N\ufffdo h\ufffd.", "Não há."),
        ("Prepara\ufffd\ufffdo", "Preparação"),
        ("condi\ufffd\ufffdes", "condições"),
        ("coraç\ufffdo", "coração"),
        ("pa\ufffdses", "países"),
    ],
)
def test_lost_letters_of_frequent_words_come_back(lost: str, whole: str):
    assert repair_lost(lost) == whole


@pytest.mark.parametrize("text", ["p\ufffdo", "m\ufffds", "tr\ufffds", "ru\ufffddo", "\ufffd", "a \ufffd b"])
def test_a_letter_that_could_be_another_stays_lost(text: str):
    assert repair_lost(text) == text
