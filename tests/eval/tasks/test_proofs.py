"""Models whose score is known beforehand: what guesses stands at chance, what knows has everything right."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_subject import ToySubject, arbitrary, ask

from ptbr_slm.eval.tasks.catalogue import published_tasks
from ptbr_slm.eval.tasks.definitions.harness import macro_f1, squad_scores, word_that_begins
from ptbr_slm.eval.tasks.documents import load_task_data
from ptbr_slm.eval.tasks.items import Item, task_items
from ptbr_slm.eval.tasks.metrics import Doubt, TaskScore, doubt, judge_choices, judge_text, task_scores
from ptbr_slm.eval.tasks.task import Metric, OutputType, Task
from ptbr_slm.runtime.scoring import ContinuationScore

ROWS = Path(__file__).parent / "rows"
TASKS = {task.name: task for task in published_tasks()}


def items_of(task: Task) -> list[Item]:
    data = load_task_data(task, [ROWS])
    return list(task_items(task, data.rows, data.fewshot_rows))


def score_of(task: Task, subject: ToySubject, items: list[Item], metric: str = "") -> TaskScore:
    scores = task_scores(task, ask(subject, task, items))
    return next(score for score in scores if not metric or score.metric == metric)


def questions(count: int, choices: int = 4) -> list[Item]:
    """Questions whose right answers are drawn evenly, and whose texts say nothing of it."""
    draw = random.Random(7)
    found = []
    for number in range(count):
        labels = tuple(f"opção {draw.randrange(10**6)}" for _ in range(choices))
        right = (draw.randrange(choices),)
        found.append(Item(str(number), f"{number}", f"Pergunta {number}:", labels, labels, right))
    return found


MULTIPLE = replace(TASKS["enem_texto"], metrics=(Metric("acc"), Metric("acc_norm"), Metric("acc_bytes")))


@pytest.mark.parametrize("name", TASKS)
def test_a_model_that_knows_the_answers_has_everything_right(name):
    task = TASKS[name]
    items = items_of(task)
    known = {
        (item.prompt, choice)
        for item in items
        for number, choice in enumerate(item.choices)
        if task.output_type is OutputType.LOGLIKELIHOOD or number in item.answers
    }
    texts = {item.prompt: f" {item.references[0]}, e mais" for item in items if item.references}
    if task.squad:
        texts = {item.prompt: f" {item.references[0]}." for item in items}
    oracle = ToySubject(lambda prompt, text: 0.0 if (prompt, text) in known else -50.0, texts.__getitem__)
    for score in task_scores(task, ask(oracle, task, items)):
        assert score.value == 1.0, score.metric


@pytest.mark.parametrize("choices", [2, 4, 5])
def test_a_model_that_guesses_stands_at_chance(choices):
    items = questions(3000, choices)
    spread = 3 * math.sqrt((1 - 1 / choices) / choices / len(items))
    for subject in (ToySubject(arbitrary), ToySubject(lambda prompt, text: -3.0)):
        for score in task_scores(MULTIPLE, ask(subject, MULTIPLE, items)):
            assert score.value == pytest.approx(1 / choices, abs=spread), score.metric
            assert score.baseline == pytest.approx(1 / choices)
            if abs(score.value - 1 / choices) < spread * 0.6:  # 95 of 100 draws
                assert doubt(score, 0, None) is Doubt.CHANCE


def test_a_constant_answer_to_uneven_labels_is_no_claim():
    """InferBR's labels are shown as the same three words: always saying the commonest is no knowledge."""
    task = TASKS["inferbr"]
    labels = tuple(task.doc_to_choice)
    draw = random.Random(3)
    rights = draw.choices(range(3), weights=[5, 3, 2], k=500)
    items = [Item(str(n), str(n), f"{n}", labels, labels, (right,)) for n, right in enumerate(rights)]
    always_first = ToySubject(lambda prompt, text: -float(labels.index(text)))
    score = score_of(task, always_first, items)
    assert score.value == score.baseline == rights.count(0) / 500 > 0.45
    assert doubt(score, task.facts.meaningful_from, 10**10) is Doubt.CHANCE


def test_the_order_of_choices_does_not_move_the_score():
    items = questions(200)
    draw = random.Random(5)
    shuffled = []
    for item in items:
        order = draw.sample(range(4), 4)
        labels = tuple(item.labels[place] for place in order)
        shuffled.append(replace(item, choices=labels, labels=labels, answers=(order.index(item.answers[0]),)))
    subject = ToySubject(arbitrary)
    for metric in ("acc", "acc_norm", "acc_bytes"):
        before = score_of(MULTIPLE, subject, items, metric)
        assert score_of(MULTIPLE, subject, shuffled, metric) == before


def test_long_choices_are_not_punished_by_the_norm_over_characters():
    labels = ("sim", "não, de jeito nenhum")
    item = Item("0", "0", "?", labels, labels, (1,))
    subject = ToySubject(lambda prompt, text: -2.0 * len(text) ** 0.5)
    assert score_of(MULTIPLE, subject, [item], "acc").value == 0.0
    assert score_of(MULTIPLE, subject, [item], "acc_norm").value == 1.0


@pytest.mark.parametrize(
    ("continuation", "word"),
    [
        (" cores.", "cores"),
        (" cores", "cores"),
        ("cores, e", "cores"),
        ("\n\ncores!\n", "cores"),
        (" Cores", "Cores"),
        (" d'água fresca", "d'água"),
        (" guarda-chuva.", "guarda-chuva"),
        (' "cores"', '"cores"'),
        (" árvore?", "árvore"),
        (" 3.500,00 reais", "350000"),
        ("\u00a0cores", "cores"),
        (" ...", ""),
        ("", ""),
        (" \n\t", ""),
    ],
)
def test_the_word_of_a_continuation_is_tucanos(continuation, word):
    assert word_that_begins(continuation) == word


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (" d'água gelada", True),
        (" d\u2019água", False),  # another apostrophe is another word
        (" D'água", False),
        (' "d\'água"', False),
        (" d'agua", False),
        (" d'a\u0301gua", False),  # the accent as a character of its own
        ("d'água.", True),
    ],
)
def test_last_words_are_compared_with_case_accents_and_quotes(text, right):
    task = TASKS["calame_pt_gen"]
    item = items_of(task)[1]
    assert judge_text(task, item, text).values == {"exact_match": float(right)}


def test_answers_over_a_context_are_compared_by_words():
    assert squad_scores("Em 1987.", ["em 1987", "1987"]) == {"exact_match": 1.0, "f1": 1.0}
    assert squad_scores("no ano de 1987", ["em 1987", "1987"])["f1"] == pytest.approx(0.4)
    assert squad_scores("", ["1987"]) == {"exact_match": 0.0, "f1": 0.0}
    assert squad_scores("a casa", ["casa"])["exact_match"] == 0.0  # `a` is a word


def test_an_exam_is_no_claim_below_its_size_and_grammar_is_one():
    exam, grammar = TASKS["enem_letra"], TASKS["multiblimp_por"]
    items = questions(400, 5)
    good = TaskScore("acc", 0.4, score_of(MULTIPLE, ToySubject(), items, "acc").interval, 0.2)
    good = replace(good, interval=replace(good.interval, low=0.35, high=0.45))
    assert doubt(good, exam.facts.meaningful_from, 85_000_000) is Doubt.SIZE
    assert doubt(good, exam.facts.meaningful_from, 7_000_000_000) is None
    assert doubt(good, exam.facts.meaningful_from, None) is None
    assert doubt(replace(good, baseline=0.2), grammar.facts.meaningful_from, 10_000_000) is None
    assert doubt(replace(good, baseline=0.44), exam.facts.meaningful_from, 7_000_000_000) is Doubt.CHANCE
    assert doubt(replace(good, baseline=0.5), exam.facts.meaningful_from, 7_000_000_000) is Doubt.BELOW


def test_the_interval_of_macro_f1_holds_the_truth():
    """Answers drawn from known rates: the interval of about 95 % of the draws holds the rate's own F1."""
    task = replace(TASKS["assin2_rte"], metrics=(Metric("f1"),))
    labels = ("Não", "Sim")
    rates = {(0, 0): 0.35, (0, 1): 0.15, (1, 0): 0.2, (1, 1): 0.3}
    truth = macro_f1([pair for pair, share in rates.items() for _ in range(round(share * 100))])
    draw = random.Random(11)
    held = 0
    for _ in range(120):
        pairs = draw.choices(list(rates), weights=list(rates.values()), k=300)
        answers = {f"{n}": chosen for n, (_, chosen) in enumerate(pairs)}
        items = [Item(f"{n}", "", f"{n}", labels, labels, (right,)) for n, (right, _) in enumerate(pairs)]
        subject = ToySubject(
            lambda prompt, text, known=answers: 0.0 if labels.index(text) == known[prompt] else -9.0
        )
        score = score_of(task, subject, items)
        held += truth in score.interval
        assert score.baseline < 0.45
    assert 105 <= held <= 120


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30),
)
def test_macro_f1_is_between_none_and_all(pairs):
    value = macro_f1(pairs)
    assert 0 <= value <= 1
    assert (value == 1) == all(right == chosen for right, chosen in pairs)
    assert macro_f1([(2 - right, 2 - chosen) for right, chosen in pairs]) == pytest.approx(value)


def test_perplexity_and_accuracy_of_last_words():
    task = TASKS["lambada_pt"]
    items = items_of(task)
    subject = ToySubject(lambda prompt, text: -2.0)
    scores = {score.metric: score for score in task_scores(task, ask(subject, task, items))}
    assert scores["perplexity"].value == pytest.approx(math.exp(2))
    assert scores["acc"].value == 0.0 and scores["acc"].baseline is None


def test_a_prompt_that_was_cut_is_counted():
    item = questions(1)[0]
    cut = [ContinuationScore(-1.0, 1, 1, False, 12)] * 4
    assert judge_choices(MULTIPLE, item, cut).cut == 12
