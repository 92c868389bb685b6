"""Tasks in training: the same items each time, nothing else changed, and no run that ends by them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from task_files import write_rows, write_task
from tiny_runs import assert_same_weights, records

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.benchmark import select_benchmarks
from ptbr_slm.eval.in_training import TasksInTraining
from ptbr_slm.eval.run import run_benchmark
from ptbr_slm.eval.subject import LocalSubject
from ptbr_slm.train.run import train

ROWS = [
    {"id": f"n{number}", "pergunta": "O dia", "opcoes": [f"a{number}", "b", "c"], "certa": number % 3}
    for number in range(40)
]
VALUES = {"evaluation.every": 2, "max_steps": 6, "seq_len": 64, "evaluation.sample_tokens": 3}


@pytest.fixture
def task(tmp_path):
    write_rows(tmp_path / "cores.jsonl", ROWS)
    return write_task(tmp_path)


def scorer(task, seconds=30.0):
    return TasksInTraining([str(task)], [task.parent], seconds)


def test_scores_are_recorded_and_nothing_else_changes(settings, recorder, task, tmp_path):
    plain = train(settings({**VALUES, "output": tmp_path / "plain"}))
    result = train(settings(VALUES), recorder, scorer(task))
    assert_same_weights(result.model, plain.model, atol=0.0)
    steps = records(result.run, "tasks")
    assert [record["step"] for record in steps] == [2, 4, 6]
    assert all(record["items"] == {"cores": 40} and record["chance"] == {"cores": 0.25} for record in steps)
    told = [record for record in recorder.events if record["event"] == "tasks"]
    assert told == steps

    (benchmark,) = select_benchmarks([str(task)], [task.parent])
    with LocalSubject(result.model, "cpu") as subject:
        after = run_benchmark(subject, benchmark)
    assert steps[-1]["scores"]["cores"] == round(after.scores[0].value, 6)
    page = (result.run / "report" / "report.html").read_text(encoding="utf-8")
    assert "cores (%), 40 itens, acaso 25" in page and 'class="nivel"' in page
    assert json.loads((result.run / "report" / "report.json").read_text())["tasks"] == [
        {key: value for key, value in record.items() if key != "event"} for record in steps
    ]


def test_the_items_of_the_first_time_are_asked_again_after_a_resume_too(settings, task, monkeypatch):
    monkeypatch.setattr("ptbr_slm.eval.benchmark._BATCH_ITEMS", 8)
    values = {**VALUES, "max_steps": 4}
    first = train(settings(values), None, scorer(task, seconds=1e-9))
    assert [record["items"] for record in records(first.run, "tasks")] == [{"cores": 8}] * 2
    more = {**values, "max_steps": 8, "allow_config_change": True}
    second = train(settings(more), None, scorer(task))
    assert [record["items"] for record in records(second.run, "tasks")] == [{"cores": 8}] * 4


def test_a_task_that_does_not_fit_the_model_is_left_out_and_the_run_goes_on(settings, recorder, task):
    rows = [{"id": "x", "pergunta": "O dia", "opcoes": ["b", "palavra " * 40], "certa": 0}]
    write_rows(task.parent / "cores.jsonl", rows)
    result = train(settings(VALUES), recorder, scorer(task))
    assert result.status == "done" and not records(result.run, "tasks")
    (warning,) = [r for r in recorder.events if r["event"] == "warning"]
    assert warning["code"] == "E_PROMPT_TOO_LONG" and "evaluation.tasks" in warning["message"]


def test_the_random_state_and_the_mode_are_untouched(settings, task):
    from ptbr_slm.config import ModelConfig
    from ptbr_slm.model import Llama
    from ptbr_slm.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(settings().data / "tokenizer.json")
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=16, intermediate_size=32, max_seq_len=64,
    )  # fmt: skip
    model = Llama(config).initialize(0).train()
    state = torch.get_rng_state()
    (score,) = scorer(task).score(model, tokenizer, {})
    assert score.items == 40 and torch.equal(torch.get_rng_state(), state)
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.loss_sum(torch.ones(1, 8, dtype=torch.long), torch.ones(1, 8, dtype=torch.long)).backward()


def test_a_name_that_is_none_is_refused_before_anything_is_written(task):
    with pytest.raises(SlmError) as caught:
        TasksInTraining(["core"], [task.parent], 1.0)
    assert caught.value.code == "E_TASK"


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_of_two_ranks_one_asks_and_the_other_waits(train_arguments, task, tmp_path, parallel):
    values = {**VALUES, "max_steps": 4, "ranks": 2, "parallel": parallel, "evaluation.tasks": [str(task)]}
    arguments = train_arguments(tmp_path / parallel, **values, **{"evaluation.task_data": [str(task.parent)]})
    command = [sys.executable, "-m", "ptbr_slm", *arguments, "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    scored = [record for record in told if record["event"] == "tasks"]
    assert scored == records(tmp_path / parallel, "tasks")
    assert [record["step"] for record in scored] == [2, 4] and scored[0]["items"] == {"cores": 40}
