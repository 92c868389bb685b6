"""A tuning as a run: any cut of a step gives the same weights, and any stop; what is refused on the way."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from listeners import Recorder, StopAfter
from refusals import refusal
from tiny_chat import turns, write_lines
from tiny_runs import assert_same_weights, losses, records
from tiny_tunings import tiny_base, tune_arguments

from ptbr_slm import faults
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.run import train
from ptbr_slm.train.trainer import Trainer
from ptbr_slm.tune.spec import TuneSpec


def tune(config, listener=None):
    return train(config, listener, spec=TuneSpec())


def weights(model):
    return sha256_file(model / "model.safetensors")


def start(arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "ptbr_slm", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_step(process, run, step):
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if (run / "metrics.jsonl").is_file() and len(records(run)) >= step:
            return
        time.sleep(0.02)


# A step in any pieces.


@pytest.fixture
def whole(settings, text, tmp_path):
    """Each step as one micro-batch of 8 sequences, a quarter of them pre-training text."""
    return tune(settings(output=tmp_path / "whole", batch_size=8, grad_accum=1, **replay(text))).run


def replay(text):
    return {"tune__replay": 0.25, "tune__replay_data": str(text), "checkpoint__every": 0}


def assert_same_run(run, whole):
    tokens = [record["tokens"] for record in records(whole)]
    assert len({b - a for a, b in pairwise(tokens)}) > 3, "the answers of a step are of unequal lengths"
    assert [record["tokens"] for record in records(run)] == tokens
    np.testing.assert_allclose(losses(run), losses(whole), rtol=2e-5)
    assert_same_weights(run / "final", whole / "final", atol=1e-5)


@pytest.mark.parametrize(("batch_size", "grad_accum"), [(1, 8), (2, 4)])
def test_micro_batches_of_any_size_give_the_same_weights(settings, text, whole, batch_size, grad_accum):
    assert_same_run(tune(settings(batch_size=batch_size, grad_accum=grad_accum, **replay(text))).run, whole)


@pytest.mark.slow
def test_two_ranks_give_the_same_weights(base, conversations, text, whole, tmp_path):
    values = {"batch_size": 1, "grad_accum": 8, "ranks": 2, **replay(text)}
    process = start(tune_arguments(base, conversations, tmp_path / "ranks", **values))
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert_same_run(tmp_path / "ranks", whole)


# Stops.


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_stopped_tuning_goes_on_as_if_it_had_not_stopped(settings, text, tmp_path, number, code):
    values = {"tune__replay": 0.3, "tune__replay_data": text, "evaluation__every": 2}
    undisturbed = tune(settings(**values))
    config = settings(output=tmp_path / "stopped", **values)
    stopped = tune(config, StopAfter(step=2, number=number))
    assert (stopped.status, stopped.exit_code) == ("stopped", code)
    done = tune(config)
    assert weights(done.model) == weights(undisturbed.model)
    assert records(done.run, "eval") == records(undisturbed.run, "eval")
    ends = json.loads((done.model / "generation_config.json").read_text())["eos_token_id"]
    assert len(ends) == 2 and ends == json.loads((done.model / "config.json").read_text())["eos_token_id"]


@pytest.mark.slow
def test_a_killed_process_and_a_stopped_one_go_on_bit_for_bit(settings, base, conversations, tmp_path):
    values = {"max_steps": 60, "checkpoint__every": 5}
    undisturbed = tune(settings(**values))
    run, draw = tmp_path / "killed", random.Random(os.getpid())
    arguments = tune_arguments(base, conversations, run, **values)
    process = start(arguments)
    wait_for_step(process, run, 12)
    time.sleep(draw.uniform(0, 0.1))
    process.kill()
    assert process.communicate(timeout=60) and process.returncode == -signal.SIGKILL
    process = start(arguments)
    wait_for_step(process, run, 25)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in errors
    assert weights(tune(settings(output=run, **values)).model) == weights(undisturbed.model)
    assert losses(run) == losses(undisturbed.run)


def test_max_time_saves_a_usable_model_and_exits_with_75(settings):
    stopped = tune(settings(max_time="1s"))  # this process is older
    assert (stopped.reason, stopped.exit_code, stopped.step) == ("max_time", 75, 1)
    assert len(ModelFolder.open(stopped.model).config.eos_token_ids) == 2


# Refusals on resume.


@pytest.fixture
def stopped(settings):
    return tune(settings(), StopAfter(step=2)).run


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"optimizer__learning_rate": 0.1}, "optimizer.learning_rate 0.003 -> 0.1"),
        ({"tune__loss": "all"}, "tune.loss answers -> all"),
        ({"seq_len": 96}, "seq_len 64 -> 96"),
        ({"tune__epochs": 5.0}, "tune.epochs 3.0 -> 5.0"),
        ({"seed": 3}, "seed 0 -> 3"),
    ],
)
def test_changed_settings_are_refused_old_and_new(settings, stopped, changed, words):
    error = refusal(tune, settings(**changed))
    assert error.code == "E_CONFIG_CHANGED" and words in error.message, error


def test_other_data_another_model_and_another_form_are_refused(settings, stopped, base, tmp_path):
    other = write_lines(
        tmp_path / "outras.jsonl", [{"messages": turns("Oi?", f"Olá {n}.")} for n in range(9)]
    )
    assert refusal(tune, settings(data=other)).code == "E_DATA_CORRUPT"
    (tmp_path / "outro").mkdir()
    model = tiny_base(tmp_path / "outro" / "base", seed=1)
    error = refusal(tune, settings(base=model))
    assert error.code == "E_CONFIG_CHANGED" and "de que o checkpoint partiu" in error.message
    form = shutil.copytree(base, tmp_path / "forma")
    (form / "manifest.json").unlink()
    template = "{{ bos_token }}Conversa\n" + ModelFolder(base).chat_template.removeprefix("{{ bos_token }}")
    (form / "chat_template.jinja").write_text(template)
    assert refusal(tune, settings(base=form)).code == "E_DATA_CORRUPT"


def test_the_base_may_move_and_where_it_is_gone_the_error_says_what_to_do(settings, stopped, base, tmp_path):
    moved = shutil.copytree(base, tmp_path / "mudou")
    assert tune(settings(base=moved)).status == "done"
    error = refusal(settings, base=tmp_path / "sumiu")
    assert error.code == "E_NOT_FOUND" and "RUN/final" in error.hint


def test_runs_of_train_and_of_tune_do_not_mix(settings, text, tmp_path):
    values = {"data": text, "output": tmp_path / "pre", "model_size": "nano", "seq_len": 16, "max_steps": 1,
              "evaluation.sample_tokens": 0}  # fmt: skip
    train(from_values(values))
    error = refusal(tune, settings(output=tmp_path / "pre"))
    assert error.code == "E_EXISTS" and "ptbr-slm train" in error.message
    run = tune(settings(max_steps=1)).run
    error = refusal(train, from_values({**values, "output": run}))
    assert error.code == "E_EXISTS" and "ptbr-slm tune" in error.message


# Guards.


def test_a_step_without_a_finite_loss_is_left_out(settings, monkeypatch):
    monkeypatch.setenv(faults.VARIABLE, "nan@step.loss:3")
    faults.reset()
    result = tune(settings())
    assert result.status == "done" and [r["step"] for r in records(result.run, "dropped")] == [2]


def test_an_out_of_memory_halves_the_micro_batch_and_changes_nothing(settings, tmp_path, monkeypatch):
    undisturbed = tune(settings())
    monkeypatch.setenv(faults.VARIABLE, "oom@step.backward:5")
    faults.reset()
    recorder = Recorder()
    result = tune(settings(output=tmp_path / "menor"), recorder)
    (event,) = recorder.named("out_of_memory")
    assert (event["before"], event["after"]) == (2, 1)
    assert_same_weights(result.model, undisturbed.model, atol=1e-5)


def test_a_spike_goes_back_to_a_checkpoint(settings, monkeypatch):
    step = Trainer._attempt

    def spiking(trainer, windows):
        result = step(trainer, windows)
        return (
            replace(result, loss=1e3)
            if 12 <= trainer.state.step < 14 and not trainer.state.rollbacks
            else result
        )

    monkeypatch.setattr(Trainer, "_attempt", spiking)
    guard = {"guard__spike_after": 6, "guard__spike_steps": 2, "checkpoint__every": 3}
    recorder = Recorder()
    result = tune(settings(max_steps=18, **guard), recorder)
    assert result.status == "done" and len(recorder.named("rollback")) == 1
