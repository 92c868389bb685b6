"""`ptbr-slm eval` as a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from task_files import write_rows, write_task
from tiny_models import random_weights, write_model

from ptbr_slm.config import ModelConfig
from ptbr_slm.tokenizer import Tokenizer

ROWS = [
    {"id": f"n{number}", "pergunta": "O rio corre " * 40, "opcoes": list("abc"), "certa": number % 3}
    for number in range(600)
]


@pytest.fixture(scope="module")
def run(texts, tmp_path_factory):
    """The folder of a training, with a model in final/, and a task beside it."""
    tokenizer = Tokenizer.train(texts * 4, 384)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2,
        head_dim=16, intermediate_size=96, max_seq_len=512,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("eval")
    write_model(folder / "treino" / "final", config, tokenizer, random_weights(config, 7))
    write_rows(folder / "cores.jsonl", ROWS)
    write_task(folder)
    return folder


def arguments(run, tmp_path, *more) -> list[str]:
    task = ["--tasks", str(run / "cores.yaml"), "--task-data", str(run), "--device", "cpu"]
    return ["eval", str(run / "treino"), *task, "-o", str(tmp_path / "saida"), *more]


def test_a_run_killed_in_the_middle_goes_on_where_it_was(cli, run, tmp_path):
    cache = {"PTBR_SLM_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "ptbr_slm", *arguments(run, tmp_path)]
    process = subprocess.Popen(command, env={**os.environ, **cache}, stderr=subprocess.DEVNULL)
    answers = tmp_path / "cache" / "eval"
    deadline = time.monotonic() + 100
    while sum(len(file.read_bytes().splitlines()) for file in answers.rglob("*.jsonl")) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (file,) = answers.rglob("*.jsonl")
    before = file.read_bytes()
    done = json.loads(cli(*arguments(run, tmp_path, "--json"), env=cache, check=True).stdout)
    (task,) = done["tasks"]
    assert (task["items"], task["of"]) == (600, 600)
    whole = before[: before.rindex(b"\n") + 1]
    assert file.read_bytes().startswith(whole)

    items = (tmp_path / "saida" / "items" / "cores.jsonl").read_bytes()
    cli(*arguments(run, tmp_path, "--no-cache"), env=cache, check=True)
    assert (tmp_path / "saida" / "items" / "cores.jsonl").read_bytes() == items


def test_ctrl_c_ends_with_130_and_says_that_the_answers_are_kept(run, tmp_path):
    environment = {**os.environ, "PTBR_SLM_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "ptbr_slm", *arguments(run, tmp_path)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not list((tmp_path / "cache").rglob("*.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "ficou guardado" in stderr and not (tmp_path / "saida").exists()


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--limit", "0"], 2, "--limit"),
        (["--time-budget", "logo"], 2, "duração"),
        (["--tasks", "cors"], 2, "não existe a tarefa"),
    ],
)
def test_what_cannot_be_meant_is_refused(cli, run, tmp_path, more, code, words):
    done = cli(*arguments(run, tmp_path, *more))
    assert done.returncode == code and words in done.stderr
