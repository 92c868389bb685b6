"""A run that goes wrong and comes back: spikes, a loss that is no number, and kills in between."""

from __future__ import annotations

import copy
import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from poisoned_windows import VARIABLE, poisoned

from ptbr_slm import faults
from ptbr_slm.errors import SlmError
from ptbr_slm.train import trainer
from ptbr_slm.train.checkpoint.files import list_checkpoints, read_state
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train
from ptbr_slm.train.state import STATE_SCHEMA, TrainState

WATCHFUL = {"max_steps": 40, "checkpoint.every": 4, "guard.spike_after": 8, "guard.spike_steps": 3}
SPIKE = (14, 17)
"""Steps, from 0, whose windows are made poisonous."""


@pytest.fixture(autouse=True)
def _forget_faults():
    faults.reset()
    yield
    faults.reset()


@pytest.fixture
def poison() -> Iterator[str]:
    """Windows 4 * 14 to 4 * 17 are noise that ruins the weights; the variable for other processes."""
    first, last = 4 * SPIKE[0], 4 * SPIKE[1]
    with poisoned(first, last):
        yield f"{first}:{last}"


def steps_of(run) -> list[dict]:
    return [r for r in read_metrics(run / "metrics.jsonl") if r["event"] == "step"]


def test_a_spike_goes_back_to_the_checkpoint_before_it_and_leaves_its_data_out(settings, recorder, poison):
    config = settings(WATCHFUL)
    result = train(config, recorder)
    assert result.status == "done" and result.step == 40
    (event,) = recorder.named("rollback")
    assert event["step"] == 12 and event["high_since"] == 16 and event["from_step"] == 18
    assert event["skipped_windows"][0] == 4 * 14 and event["skipped_windows"][1] == 4 * 18
    steps = steps_of(config.output)
    assert [r["step"] for r in steps] == list(range(1, 41)), "metrics.jsonl reads as one run"
    assert max(r["loss"] for r in steps[20:]) < event["loss"] - 1 and steps[-1]["loss"] < steps[0]["loss"]
    assert [r["step"] for r in read_metrics(config.output / "metrics.jsonl") if r["event"] == "rollback"] == [
        12
    ]
    state = read_state(list_checkpoints(config.output / "checkpoints")[0])
    assert state.skipped_windows == [event["skipped_windows"]] and len(state.rollbacks) == 1
    assert state.cursor == 4 * 40 + event["skipped_windows"][1] - event["skipped_windows"][0]


DIE_AT = {
    "the new state is written": "kill@checkpoint.before_rename:4",
    "it is in its place": "kill@checkpoint.after_rename:4",
}


@pytest.mark.parametrize("moment", DIE_AT)
def test_a_run_killed_around_a_rollback_ends_as_one_that_was_not(
    settings, train_arguments, tmp_path, weights, poison, moment, support_environment
):
    config = settings(WATCHFUL)
    train(config)
    other = tmp_path / "killed"
    code = "import poisoned_windows\nfrom ptbr_slm.cli.main import main\nmain()"
    environment = {**support_environment, VARIABLE: poison, "PTBR_SLM_FAULT": DIE_AT[moment]}
    command = [sys.executable, "-c", code, *train_arguments(other, **WATCHFUL)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=100)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert train(settings({**WATCHFUL, "output": other})).status == "done"
    assert weights(other / "final") == weights(config.output / "final")
    both = [
        [{k: r.get(k) for k in ("event", "step", "loss", "skipped_windows")}
         for r in read_metrics(run / "metrics.jsonl")] for run in (other, config.output)
    ]  # fmt: skip
    assert both[0] == both[1]


def test_a_spike_before_the_first_checkpoint_is_told_and_the_run_goes_on(settings, recorder, poison):
    config = settings({**WATCHFUL, "checkpoint.every": 30})
    assert train(config, recorder).status == "done"
    assert [w["code"] for w in recorder.named("warning")] == ["loss_spike"] and not recorder.named("rollback")


def test_after_the_last_rollback_allowed_a_spike_is_a_diagnosis(settings, poison):
    with pytest.raises(SlmError) as caught:
        train(settings({**WATCHFUL, "guard.max_rollbacks": 0}))
    assert caught.value.code == "E_TRAINING_DIVERGED" and "saltou no passo 16" in caught.value.message


def test_a_checkpoint_due_within_a_spike_is_not_written(settings, monkeypatch, poison):
    written: list[TrainState] = []
    original = trainer.write_checkpoint

    def watching(folder, model, optimizer, tokenizer, state, **keywords):
        written.append(copy.deepcopy(state))
        return original(folder, model, optimizer, tokenizer, state, **keywords)

    monkeypatch.setattr(trainer, "write_checkpoint", watching)
    train(settings({**WATCHFUL, "checkpoint.every": 1}))
    assert len(written) > 30 and all(state.guard["high"] == 0 for state in written)


EIGHT = {"batch_size": 1, "grad_accum": 8, "max_steps": 6}


def test_a_nan_in_one_micro_batch_of_eight_drops_that_step_and_names_it(settings, recorder, monkeypatch):
    monkeypatch.setenv("PTBR_SLM_FAULT", "nan@step.loss:13")  # step 2, micro-batch 5
    config = settings(EIGHT)
    result = train(config, recorder)
    assert result.status == "done" and result.skipped_steps == 1
    (dropped,) = recorder.named("dropped")
    assert dropped["step"] == 2 and dropped["bad_micro_batches"] == [5] and "loss" not in dropped
    assert [r["step"] for r in steps_of(config.output)] == [1, 3, 4, 5, 6]
    assert all(math.isfinite(r["loss"]) for r in steps_of(config.output))


def test_a_dropped_step_leaves_weights_and_moments_as_they_were(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("PTBR_SLM_FAULT", "nan@step.loss:13")
    train(settings({**EIGHT, "max_steps": 2, "optimizer.learning_rate": 0.01}))
    monkeypatch.delenv("PTBR_SLM_FAULT")
    folders = [tmp_path / "run" / "checkpoints" / "step-00000002" / "model.safetensors"]
    train(settings({**EIGHT, "max_steps": 2, "output": tmp_path / "one", "checkpoint.every": 1}))
    folders.append(tmp_path / "one" / "checkpoints" / "step-00000001" / "model.safetensors")
    assert folders[0].read_bytes() == folders[1].read_bytes()


def test_nans_in_a_row_stop_the_run_with_step_rate_norm_and_windows(settings, monkeypatch):
    monkeypatch.setenv("PTBR_SLM_FAULT", ";".join(f"nan@step.loss:{hit}" for hit in (17, 25, 33)))
    config = settings({**EIGHT, "checkpoint.every": 2})
    with pytest.raises(SlmError) as caught:
        train(config)
    for fact in ("do passo 3 ao 5", "janelas 32 a 39", "micro-lote 1 de 8", "taxa", "norma do gradiente nan"):
        assert fact in caught.value.message
    assert read_state(list_checkpoints(config.output / "checkpoints")[0]).step == 4
    faults.reset()
    monkeypatch.delenv("PTBR_SLM_FAULT")
    with pytest.raises(SlmError):  # the state of the guards, too, goes on: two bad steps, then a good one
        monkeypatch.setenv("PTBR_SLM_FAULT", "nan@step.loss:1")
        train(config)


def test_state_json_is_json(settings):
    config = settings({"max_steps": 4})
    train(config)
    file = config.output / "checkpoints" / "step-00000004" / "training" / "state.json"
    body = json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (
        body["schema"] == STATE_SCHEMA and body["guard"]["seen"] == 4 and np.isfinite(body["guard"]["mean"])
    )
