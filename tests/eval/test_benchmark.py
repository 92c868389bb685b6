"""Which tasks are asked by default, and beside which published scores."""

from pathlib import Path

import pytest
from task_files import GOOD_TASK, write_rows, write_task

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.benchmark import select_benchmarks

ROWS = Path(__file__).parent / "tasks" / "rows"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))


def test_by_default_the_tasks_are_asked_whose_data_is_here_and_free_to_use():
    names = [each.task.name for each in select_benchmarks([], [ROWS])]
    assert {"gramatica", "calame_pt", "lambada_pt_gen", "inferbr"} <= set(names)
    assert not {"hellaswag_pt", "arc_pt"} & set(names)
    assert not any(name.startswith("ptbr_grammar") for name in names)  # `gramatica` asks these pairs
    accepted = [each.task.name for each in select_benchmarks([], [ROWS], accept_licence=True)]
    assert {"hellaswag_pt", "arc_pt"} <= set(accepted)


def test_a_licence_that_was_not_accepted_is_refused_although_the_data_is_here():
    with pytest.raises(SlmError) as found:
        select_benchmarks(["arc_pt"], [ROWS])
    assert found.value.code == "E_LICENCE"


@pytest.mark.parametrize(("items", "shown"), [(3, True), (300, False), (None, True)])
def test_scores_published_over_other_items_are_not_shown(tmp_path, items, shown):
    facts = GOOD_TASK["metadata"] | {"items": items, "published": {"Outro": 0.5}}
    write_rows(tmp_path / "cores.jsonl")
    (found,) = select_benchmarks([str(write_task(tmp_path, metadata=facts))])
    assert found.task.facts.published == ({"Outro": 0.5} if shown else {})
