"""Rules of web text: what each drops, at its threshold, and the warning when one takes too much."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from page_text import PAGE

from ptbr_slm.data.document import REASONS, Document
from ptbr_slm.data.presets import preset
from ptbr_slm.data.stages.figures import FIGURES, Figures
from ptbr_slm.data.stages.named import RULES
from ptbr_slm.data.stages.rules import (
    AlphabeticTokens,
    EndedLines,
    FigureRule,
    MeanWordLength,
    RepeatedGrams,
    StopWords,
    TopGram,
    Words,
    excessive_rules,
    fineweb2,
)
from ptbr_slm.data.stages.stage import Dropped, run

PAGE_RULES = [entry.rule for entry in RULES.values() if isinstance(entry.rule, FigureRule)]


def reason(text: str) -> str | None:
    """Why the preset `web` drops `text`, or None."""
    web = preset("web")
    answer = run(web.tagging + web.filtering, Document(text, "a.txt"))
    return None if isinstance(answer, Document) else answer[2].reason


def test_prose_passes():
    assert reason(PAGE) is None


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda page: "\n".join(["Leia também"] * 5 + page.split("\n")), "repeated_lines"),
        (lambda page: page + " compre já o seu," * 40, "top_gram"),
        (lambda page: page.replace(".", ""), "few_ended_lines"),
        (lambda page: page.replace(" ", "\n").replace("\n", " ", 1).replace("e\n", "e "), "many_newlines"),
        (lambda page: page.split("\n")[0], "few_words"),
        (lambda page: page.replace(" ", " #", 60), "many_hashes"),
        (
            lambda page: "- " + page.replace(". ", ".\n- ").replace("\n", "\n- "),
            "bullet_lines",
        ),
        (lambda page: page.replace(".", "..."), "ellipsis_lines"),
        (lambda page: "".join(f"{word} {n}, " for n, word in enumerate(page.split())) + ".", "few_letters"),
        (lambda page: page.replace("ã", "\ufffd").replace("é", "\ufffd"), "replacement_characters"),
    ],
)
def test_what_is_not_prose_is_dropped_with_a_reason(spoil: Callable[[str], str], why: str):
    assert reason(spoil(PAGE)) == why


def test_english_is_dropped_by_the_stop_words():
    text = "\n".join(f"This is the page number {n} of our story, where people walk home." for n in range(9))
    assert StopWords()(Document(text, "a.txt")) == Dropped("few_stop_words", {"stop_words": 0, "least": 2})


@pytest.mark.parametrize("rule", PAGE_RULES, ids=lambda rule: rule.name)
def test_a_rule_reads_a_stored_figure_and_keeps_what_is_at_the_threshold(rule: FigureRule):
    for limit, why, beyond in ((rule.least, rule.below, -1e-9), (rule.most, rule.above, 1e-9)):
        if not why:
            continue
        assert why in REASONS
        at = Document("", "a.txt", attributes={rule.name: limit})
        assert rule(at) is at
        answer = rule(Document("", "a.txt", attributes={rule.name: limit + beyond}))
        assert isinstance(answer, Dropped) and answer.reason == why
        assert answer.figures["least" if beyond < 0 else "most"] == limit


def test_each_rule_works_without_the_tagging_stage():
    for rule in fineweb2():
        document = Document(PAGE, "a.txt")
        assert rule(document) is document


def test_thresholds_are_fields():
    document = Document(PAGE, "a.txt")
    for rule in (
        TopGram(most=0.001, n=3),
        RepeatedGrams(most=-1, n=7),
        EndedLines(least=1.1),
        Words(most=5),
        MeanWordLength(least=9),
        AlphabeticTokens(least=1),
    ):
        assert isinstance(rule(document), Dropped)


def test_the_figures_of_a_preset_are_those_of_its_rules():
    names = {rule.name for rule in preset("web").filtering if isinstance(rule, FigureRule)}
    assert names <= set(FIGURES) and preset("web").tagging[0] == Figures()


def test_a_rule_that_takes_over_a_fifth_of_a_source_is_told_the_worst_first():
    counts = {"few_words": 30, "few_letters": 45, "repeated_lines": 20, "duplicate": 90, "meu": 1}
    found = excessive_rules(counts, 100)
    assert [(rule.reason, rule.dropped, rule.share) for rule in found] == [
        ("few_letters", 45, 0.45),
        ("few_words", 30, 0.3),
    ]
    assert excessive_rules({"few_words": 1}, 2) == [] and excessive_rules({}, 0) == []
