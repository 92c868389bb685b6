"""The published pairs: complete, balanced, as the generator makes them, and right by the second rule."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
from collections import Counter

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.grammar import suite as suite_module
from ptbr_slm.eval.grammar.__main__ import main as sign_off
from ptbr_slm.eval.grammar.check import REORDERED, UNBALANCED, faults
from ptbr_slm.eval.grammar.generate import PAIRS, lines, task_file
from ptbr_slm.eval.grammar.phenomena import ALL
from ptbr_slm.eval.grammar.suite import load
from ptbr_slm.eval.tasks.catalogue import built_in_tasks, select_tasks

NAMES = [phenomenon.name for phenomenon in ALL]


def test_every_phenomenon_is_published_with_its_register_and_a_hundred_pairs():
    assert [one.name for one in load().phenomena] == NAMES
    assert len(NAMES) >= 15
    assert {len(one.pairs) for one in load().phenomena} == {PAIRS}
    assert {one.register for one in load().phenomena} <= {"neutro", "formal", "norma-padrão"}


@pytest.mark.parametrize("name", NAMES)
def test_the_second_rule_finds_no_fault(name):
    assert faults(load()[name]) == []


@pytest.mark.parametrize("phenomenon", ALL, ids=NAMES)
def test_the_generator_makes_the_published_pairs(phenomenon):
    made = [(row["id"], row["sentence_good"], row["sentence_bad"]) for row in lines(phenomenon)]
    assert made == [(pair.id, pair.good, pair.bad) for pair in load()[phenomenon.name].pairs]


@pytest.mark.parametrize("name", NAMES)
def test_swapped_members_are_found(name):
    """Each pair the other way round is a fault, so that the rule is not true of everything."""
    published = load()[name]
    swapped = dataclasses.replace(
        published,
        pairs=tuple(dataclasses.replace(pair, good=pair.bad, bad=pair.good) for pair in published.pairs),
    )
    blamed = {text.partition(":")[0] for text in faults(swapped)}
    assert {pair.id for pair in published.pairs} <= blamed


@pytest.mark.parametrize("name", sorted(set(NAMES) - UNBALANCED - REORDERED))
def test_a_preference_for_words_is_right_in_half_of_the_pairs(name):
    """Any unigram model, here with random log probabilities, scores exactly 50 %."""
    scores: dict[str, float] = {}
    chance = random.Random(name)

    def logprob(text: str) -> float:
        return math.fsum(
            scores.setdefault(word, chance.gauss(0, 3)) for word in sorted(re.findall(r"\w+|-", text.lower()))
        )

    pairs = load()[name].pairs
    assert sum(logprob(pair.good) > logprob(pair.bad) for pair in pairs) == len(pairs) / 2


def test_no_sentence_is_in_two_phenomena():
    counts = Counter(pair.good for one in load().phenomena for pair in one.pairs)
    assert [text for text, n in counts.items() if n > 1] == []


def test_a_changed_file_is_refused(monkeypatch, tmp_path):
    folder = tmp_path / "data" / "pairs"
    folder.mkdir(parents=True)
    entry = {
        "name": "x",
        "title": "",
        "register": "neutro",
        "rule": "",
        "source": "",
        "caveat": "",
        "sha256": "0",
    }
    index = {"version": "1", "licence": "", "phenomena": [entry]}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    (folder / "x.jsonl").write_text("{}\n", encoding="utf-8")
    monkeypatch.setattr(suite_module, "files", lambda package: tmp_path)
    with pytest.raises(SlmError) as raised:
        suite_module.load.__wrapped__()
    assert raised.value.code == "E_DATA_CORRUPT"


@pytest.mark.parametrize("phenomenon", ALL, ids=NAMES)
def test_the_task_file_is_the_generated_one(phenomenon):
    assert built_in_tasks()[f"ptbr_grammar_{phenomenon.name}"].read_text(encoding="utf-8") == task_file(
        phenomenon
    )


def test_tasks_are_selected_by_register():
    for group, register in {"neutro": "neutro", "formal": "formal", "norma": "norma-padrão"}.items():
        names = {task.name for task in select_tasks([f"ptbr_grammar_{group}"])}
        assert names == {f"ptbr_grammar_{one.name}" for one in load().in_registers([register])}


def test_pairs_are_printed_for_sign_off(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["grammar", "crase", "--pairs", "4"])
    sign_off()
    printed = capsys.readouterr().out
    assert printed.count("[ ] crase-") == 4
    assert all(len(line) <= 100 for line in printed.splitlines())


def test_an_unknown_phenomenon():
    with pytest.raises(KeyError):
        load()["mesóclise"]
