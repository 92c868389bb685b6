"""C4's rules: which lines each takes out, which pages are dropped, and how sentences are counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_text import PAGE

from ptbr_slm.data.document import REASONS, REPAIRS, Document
from ptbr_slm.data.stages.c4 import (
    Citations,
    FewWordLines,
    JavascriptLines,
    LineRule,
    LongLines,
    LongWordLines,
    PolicyLines,
    UnendedLines,
    c4,
    c4_lines,
    count_sentences,
)
from ptbr_slm.data.stages.stage import Dropped, run


def lines_left(rule: LineRule, text: str) -> list[str]:
    answer = rule(Document(text, "a.txt"))
    return answer.text.split("\n") if isinstance(answer, Document) else []


@pytest.mark.parametrize(
    ("rule", "line", "left"),
    [
        (UnendedLines(), "Leia também", None),
        (UnendedLines(), "Uma frase cortada...", None),
        (UnendedLines(), "Ele disse: “venha.”", None),
        (UnendedLines(), 'Ele disse: "venha"', 'Ele disse: "venha"'),
        (UnendedLines(), "Será?", "Será?"),
        (FewWordLines(), "Fim. Ponto.", None),
        (FewWordLines(), "Fim do texto.", "Fim do texto."),
        (FewWordLines(least=2), "Fim. Ponto.", "Fim. Ponto."),
        (LongWordLines(), "a " + "x" * 1_001, None),
        (LongWordLines(), "a " + "x" * 1_000, "a " + "x" * 1_000),
        (LongWordLines(most=5), "seis letras", None),
        (JavascriptLines(), "Ative o JavaScript para continuar.", None),
        (JavascriptLines(), "Lorem ipsum javascript.", "Lorem ipsum javascript."),
        (PolicyLines(), "See our Privacy Policy for more.", None),
        (PolicyLines(), "uses cookies {a}", "uses cookies {a}"),
        (PolicyLines(), "Um cookie é um pequeno arquivo.", "Um cookie é um pequeno arquivo."),
        (Citations(), "Nasceu em 1839[12] no Rio.[carece de fontes?][editar]", "Nasceu em 1839 no Rio."),
        (Citations(), "O vetor v[i] fica.", "O vetor v[i] fica."),
    ],
)
def test_which_lines_a_rule_takes(rule: LineRule, line: str, left: str | None):
    good = "Esta linha é boa e fica."
    assert lines_left(rule, f"{good}\n{line}\n{good}") == [good, *([left] if left is not None else []), good]


@pytest.mark.parametrize("rule", c4_lines(), ids=lambda rule: rule.name)
def test_a_page_without_faults_is_the_same_object_and_blank_lines_stay(rule: LineRule):
    document = Document(PAGE.replace("\n", "\n\n").strip(), "a.txt")
    assert rule(document) is document and rule.name in REPAIRS


def test_what_is_taken_out_is_told_and_a_page_of_bad_lines_is_dropped():
    document = UnendedLines()(Document("Menu\n\nUma frase boa.\n\nContato", "a.txt"))
    assert isinstance(document, Document)
    assert document.text == "Uma frase boa." and document.attributes["repairs"] == "unended_lines"
    assert UnendedLines()(Document("Menu\nContato", "a.txt")) == Dropped("no_lines")
    assert "no_lines" in REASONS


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (PAGE, None),
        (PAGE + "Depois vem lorem ipsum dolor sit amet.", "lorem_ipsum"),
        (PAGE + "E se (x) { y } então.", "curly_brackets"),
        (PAGE + "Menu { x }", None),  # not ended: the line goes first
        ("Uma frase boa. Outra boa! E a terceira? A quarta, enfim.", "few_sentences"),
        ("Menu\nContato", "no_lines"),
    ],
)
def test_the_rules_together_judge_what_the_rules_of_lines_leave(text: str, why: str | None):
    answer = run(c4(), Document(text, "a.txt"))
    assert (None if isinstance(answer, Document) else answer[2].reason) == why


def test_mc4_wants_three_long_lines():
    answer = LongLines()(Document(PAGE.split("\n")[0], "a.txt"))
    assert isinstance(answer, Dropped) and answer.reason == "few_long_lines"
    assert isinstance(LongLines()(Document(PAGE, "a.txt")), Document)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("", 0),
        ("Sem ponto", 1),
        ("Uma. Duas! Três?", 3),
        ("O Sr. Silva pagou R$ 3.500,00.", 1),
        ("Que?! Sim...", 2),
        ("Fim. —", 1),
    ],
)
def test_sentences_of_a_line(line: str, count: int):
    assert count_sentences(line) == count


@given(st.text(st.sampled_from("ab .?!{\n[]1\"'…”"), max_size=200))
def test_any_text_is_a_text_without_some_of_its_lines(text: str):
    stages = c4_lines()
    result = run(tuple(rule for rule in stages if rule.name != "citations"), Document(text, "a.txt"))
    if isinstance(result, Document):
        assert set(result.text.split("\n")) <= {*text.split("\n"), ""}
        assert run(stages, result) is not None
