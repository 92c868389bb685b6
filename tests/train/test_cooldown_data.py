"""Data of its own for the cooldown: when they begin, in which order they are read, and what says so."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from refusals import refusal
from tiny_runs import assert_same_weights, records, write_texts

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.storage.manifest import read_manifest
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.batches import MicroBatch, TextBatches
from ptbr_slm.train.checkpoint.files import list_checkpoints, read_state
from ptbr_slm.train.run import train
from ptbr_slm.train.state import TrainState, first_data
from ptbr_slm.train.streams import DataStreams, Stream

HALF = {
    "schedule.kind": "wsd",
    "schedule.warmup_steps": 2,
    "schedule.cooldown_fraction": 0.5,
    "max_steps": 12,
}
"""Of the steps 0 to 11, two warm up, and half of the others cool down: 7 still has the whole rate."""
BEGINS = 8
SEQUENCES = 4
"""Of a step."""


class Numbers:
    """A batch source that answers with the numbers of the windows."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def sequences(self, windows, share=slice(None)) -> MicroBatch:
        self.read += [window for piece in windows for window in piece][share]
        return SimpleNamespace()


def streams() -> tuple[DataStreams, Numbers, Numbers]:
    own, cooldown = Numbers(), Numbers()
    return DataStreams(Stream(own, "own"), Stream(cooldown, "better")), own, cooldown


def play(data: DataStreams, state: TrainState, steps: int, cooling: bool) -> None:
    """Steps of four windows."""
    for _ in range(steps):
        data.begin_step(state, cooling=cooling)
        data.sequences([range(state.cursor, state.cursor + 4)])
        state.cursor += 4
        state.step += 1


def test_each_data_set_is_read_in_an_order_of_its_own_from_its_own_first_window():
    data, own, cooldown = streams()
    state = TrainState(data=first_data("own"))
    play(data, state, 3, cooling=False)
    assert data.begin_step(state, cooling=True).record() == {
        "event": "data",
        "step": 3,
        "sha256": "better",
        "cursor": 12,
    }
    play(data, state, 2, cooling=True)
    assert own.read == list(range(12)) and cooldown.read == list(range(8))
    assert state.data == [*first_data("own"), {"sha256": "better", "step": 3, "cursor": 12}]
    play(data, state, 1, cooling=False)  # the run was made longer: its own data again, and nothing twice
    play(data, state, 1, cooling=True)
    assert own.read[12:] == list(range(20, 24)) and cooldown.read[8:] == list(range(12, 16))
    assert [entry["sha256"] for entry in state.data] == ["own", "better", "own", "better"]


def test_without_data_of_its_own_a_cooldown_changes_nothing():
    own = Numbers()
    data, state = DataStreams(Stream(own, "own")), TrainState(data=first_data("own"))
    play(data, state, 2, cooling=False)
    play(data, state, 2, cooling=True)
    assert own.read == list(range(16)) and state.data == first_data("own") and state.cooldown_cursor is None


def test_a_run_that_rolls_back_to_before_the_cooldown_does_not_meet_the_same_text_again():
    data, _, cooldown = streams()
    state = TrainState(data=first_data("own"), cursor=40, cooldown_cursor=12)
    play(data, state, 1, cooling=True)
    assert cooldown.read == list(range(28, 32))


def test_the_steps_of_the_cooldown_read_the_better_text(settings, better, prepared, monkeypatch):
    read: dict[int, list[np.ndarray]] = {}
    original = TextBatches.sequences

    def noting(self, windows, share=slice(None)):
        batch = original(self, windows, share)
        read.setdefault(self._split.tokens, []).append(batch.tokens)
        return batch

    monkeypatch.setattr(TextBatches, "sequences", noting)
    config = settings({**HALF, "cooldown_data": better.folder})
    train(config)
    own, other = (data.split("train") for data in (prepared, better))
    assert len(read[own.tokens]) == BEGINS and len(read[other.tokens]) == 12 - BEGINS
    alone = TextBatches(other, seq_len=config.seq_len, seed=config.seed)
    np.testing.assert_array_equal(np.concatenate(read[other.tokens]), original(alone, [range(16)]).tokens)


def test_the_run_its_report_and_its_model_say_which_data_and_from_where_on(settings, better, prepared):
    done = train(settings({**HALF, "cooldown_data": better.folder}))
    wanted = [{"sha256": prepared.sha256, "step": 0, "cursor": 0},
              {"sha256": better.sha256, "step": BEGINS, "cursor": SEQUENCES * BEGINS}]  # fmt: skip
    assert read_state(list_checkpoints(done.run / "checkpoints")[0]).data == wanted
    assert json.loads((done.run / "report" / "report.json").read_text())["data"] == wanted
    assert better.sha256[:12] in (done.run / "report" / "report.md").read_text()
    assert str(better.folder) in (done.run / "config.resolved.toml").read_text()
    made = read_manifest(done.model).extra
    assert made["data"]["sha256"] == prepared.sha256
    assert (made["cooldown_data"]["sha256"], made["cooldown_data"]["from_step"]) == (better.sha256, BEGINS)


def test_killed_before_the_change_and_after_it_the_run_ends_with_the_same_weights(
    settings, train_arguments, better, tmp_path, weights, monkeypatch
):
    values = {**HALF, "cooldown_data": str(better.folder), "checkpoint.every": 3}
    train(settings(values))
    arguments = train_arguments(tmp_path / "killed", **values)
    for step in (7, 4):  # at step 7, and from the checkpoint of step 6 on at step 10, in the cooldown
        monkeypatch.setenv("PTBR_SLM_FAULT", f"kill@step.optimizer:{step}")
        died = subprocess.run(
            [sys.executable, "-m", "ptbr_slm", *arguments], capture_output=True, check=False
        )
        assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    monkeypatch.delenv("PTBR_SLM_FAULT")
    assert list_checkpoints(tmp_path / "killed" / "checkpoints")[0].name == "step-00000009"
    assert train(settings({**values, "output": tmp_path / "killed"})).status == "done"
    assert weights(tmp_path / "killed" / "final") == weights(tmp_path / "run" / "final")


@pytest.mark.slow
def test_two_ranks_change_data_at_the_same_step(settings, train_arguments, better, tmp_path):
    values = {**HALF, "cooldown_data": str(better.folder), "optimizer.learning_rate": 1e-3}
    train(settings(values))
    arguments = train_arguments(tmp_path / "two", ranks=2, **values)
    subprocess.run([sys.executable, "-m", "ptbr_slm", *arguments], capture_output=True, check=True)
    assert_same_weights(tmp_path / "two" / "final", tmp_path / "run" / "final", atol=2e-4)
    one, two = (records(tmp_path / name)[-1]["loss"] for name in ("run", "two"))
    assert two == pytest.approx(one, abs=1e-4)


def test_a_folder_of_another_tokenizer_is_refused_and_told_which_to_use(settings, prepared, tmp_path, texts):
    write_texts(tmp_path / "texts", texts, documents=4)
    prepare([tmp_path / "texts"], tmp_path / "other", Tokenizer.train(texts, 280), valid_fraction=0.0)
    error = refusal(lambda: train(settings({**HALF, "cooldown_data": tmp_path / "other"})))
    assert error.code == "E_TOKENIZER_MISMATCH"
    assert error.where.endswith("other") and str(prepared.folder / "tokenizer.json") in error.hint
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_what_cannot_be_is_refused_before_anything_is_written(settings, prepared, better, tmp_path):
    for values, code, says in (
        ({"cooldown_data": better.folder}, "E_USAGE", "schedule.kind=wsd"),
        (
            {**HALF, "schedule.cooldown_fraction": 0.0, "cooldown_data": better.folder},
            "E_USAGE",
            "cooldown_fraction",
        ),
        ({**HALF, "cooldown_data": better.folder, "distill.logits": tmp_path}, "E_USAGE", "--teacher-logits"),
        ({**HALF, "cooldown_data": tmp_path / "nada"}, "E_NOT_FOUND", "--cooldown-data"),
        ({**HALF, "cooldown_data": prepared.folder}, "E_USAGE", "--cooldown-data"),
    ):
        error = refusal(lambda values=values: train(settings(values)))
        assert error.code == code and says in f"{error.where} {error.hint}", values


def test_the_data_may_be_chosen_until_the_cooldown_begins_and_not_after_it(
    settings, prepared, better, recorder, tmp_path
):
    other = tmp_path / "other"
    write_texts(tmp_path / "texts", ["outras palavras que ninguém tinha lido até aqui"], documents=8)
    prepare([tmp_path / "texts"], other, prepared.load_tokenizer(), valid_fraction=0.0)
    before = train(settings({**HALF, "max_time": "1s"}))  # one step, without any
    assert before.reason == "max_time" and before.step == 1
    done = train(settings({**HALF, "cooldown_data": better.folder, "checkpoint.every": 10}), recorder)
    assert done.status == "done" and recorder.named("data")[0]["step"] == BEGINS
    for data in (other, None):
        values = {
            **HALF,
            "resume": str(done.run / "checkpoints" / "step-00000010"),
            "output": tmp_path / "new",
        }
        values |= {} if data is None else {"cooldown_data": data}
        error = refusal(lambda values=values: train(settings(values)))
        assert error.code == "E_DATA_CORRUPT" and "--cooldown-data" in error.where
