"""Sessions that end by the clock: whose clock, what still fits, and a cooled model where one is asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from listeners import Recorder, StopAfter
from safetensors.numpy import load_file

from ptbr_slm.errors import SlmError
from ptbr_slm.events import Event
from ptbr_slm.storage.manifest import read_manifest
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.train import loop, session, trainer
from ptbr_slm.train.average import WeightAverage
from ptbr_slm.train.checkpoint.files import list_checkpoints, read_state
from ptbr_slm.train.events import Step
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.parallel.world import SINGLE_PROCESS
from ptbr_slm.train.process import mark_session_start
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train
from ptbr_slm.train.run_folder import COOLDOWN
from ptbr_slm.train.session import Deadline, session_age


class Clock:
    """A session's age that only training steps move: 10 seconds each."""

    def __init__(self, monkeypatch, start: float = 100.0) -> None:
        self.age = start
        original = trainer.optimizer_step

        def ticking(*arguments, **keywords):
            self.age += 10.0
            return original(*arguments, **keywords)

        monkeypatch.setattr(trainer, "optimizer_step", ticking)
        monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: self.age))
        monkeypatch.setattr(trainer.Trainer, "evaluation_s", 0.0)  # a guess from the pace until the first one
        monkeypatch.setattr(session, "_session_start", lambda start: 0.0)
        monkeypatch.setattr(session, "clock", lambda: self.age)


class StopInCooldown(Recorder):
    """Sends SIGTERM after the first step of a cooldown."""

    def event(self, event: Event) -> None:
        super().event(event)
        if isinstance(event, Step) and self.named("cooldown"):
            signal.raise_signal(signal.SIGTERM)


WSD = {"schedule.kind": "wsd", "schedule.cooldown_fraction": 0.4, "max_steps": 40, "checkpoint.every": 4}
TIMED = {**WSD, "max_time": "303s", "cooldown": "session"}
"""From an age of 100 s to 300 s: 20 steps of 10 s, of which the last 8 or so are the branch."""


def rates(file) -> list[float]:
    return [r["learning_rate"] for r in read_metrics(file) if r["event"] == "step"]


def test_a_session_ends_with_a_cooled_model_and_the_next_goes_on_from_the_stable_phase(
    settings, tmp_path, monkeypatch, weights, recorder
):
    train(settings(WSD))
    config = settings({**TIMED, "output": tmp_path / "sessions"})
    with monkeypatch.context() as patch:
        Clock(patch)
        stopped = train(config, recorder)
    assert (stopped.status, stopped.reason, stopped.exit_code) == ("stopped", "max_time", 75)
    stable = stopped.step
    assert 9 <= stable <= 12 and stopped.model == config.output / "final"
    ModelFolder.open(stopped.model)
    extra = read_manifest(stopped.model).extra
    assert (extra["branch"], extra["stable_step"]) == ("cooldown", stable) and extra["steps"] >= stable + 6
    assert extra["bits_per_byte"] == stopped.bits_per_byte is not None
    assert (config.output / "checkpoints" / "latest").read_text() == f"step-{stable:08d}\n"
    assert list_checkpoints(config.output / "checkpoints")[0].name == f"step-{stable:08d}"
    falling = rates(config.output / COOLDOWN)
    assert falling == sorted(falling, reverse=True) and falling[-1] < 0.3 * falling[0]
    assert max(r["step"] for r in read_metrics(config.output / "metrics.jsonl")) == stable
    assert recorder.named("cooldown")[0]["step"] == stable
    assert train(settings({**WSD, "output": config.output})).status == "done"
    assert weights(config.output / "final") == weights(tmp_path / "run" / "final"), "the branch left no trace"
    assert rates(config.output / "metrics.jsonl") == rates(tmp_path / "run" / "metrics.jsonl")


def test_the_branch_reads_the_cooldowns_own_data_and_the_stable_phase_never_does(
    settings, better, prepared, monkeypatch
):
    with monkeypatch.context() as patch:
        Clock(patch)
        stopped = train(settings({**TIMED, "cooldown_data": better.folder}))
    assert stopped.model.name == "final"
    made = read_manifest(stopped.model).extra["cooldown_data"]
    assert (made["sha256"], made["from_step"]) == (better.sha256, stopped.step)
    stable = read_state(list_checkpoints(stopped.run / "checkpoints")[0])
    assert [entry["sha256"] for entry in stable.data] == [prepared.sha256]


AVERAGED = {**TIMED, "cooldown": "average"}


def test_a_session_ends_with_the_mean_of_its_last_weights_and_the_next_goes_on_as_if_nothing_had_been(
    settings, tmp_path, monkeypatch, weights, recorder
):
    train(settings(WSD))
    taken: list[dict[str, np.ndarray]] = []
    original = WeightAverage.add

    def noting(self, step):
        taken.append(self._parallel.model.to_hf_weights())
        original(self, step)

    config = settings({**AVERAGED, "output": tmp_path / "sessions"})
    with monkeypatch.context() as patch:
        Clock(patch)
        patch.setattr(WeightAverage, "add", noting)
        stopped = train(config, recorder)
    assert (stopped.reason, stopped.exit_code, stopped.step) == ("max_time", 75, 20)
    assert stopped.model == config.output / "final" and len(taken) == 5  # of 20 steps, the last fifth
    final = load_file(stopped.model / "model.safetensors")
    for name, weight in final.items():
        np.testing.assert_allclose(weight, np.mean([one[name] for one in taken], axis=0), atol=1e-6)
    (told,) = recorder.named("average")
    assert told in read_metrics(config.output / "metrics.jsonl")
    assert (told["step"], told["first_step"], told["count"]) == (20, 21 - len(taken), len(taken))
    assert told["bits_per_byte"] == stopped.bits_per_byte != told["raw_bits_per_byte"]
    extra = read_manifest(stopped.model).extra
    assert (extra["branch"], extra["averaged_weights"]) == ("average", len(taken))
    assert "média dos pesos" in (config.output / "report" / "report.md").read_text()
    assert train(settings({**WSD, "output": config.output})).status == "done"
    assert weights(config.output / "final") == weights(tmp_path / "run" / "final"), "it left no trace"


def test_a_session_with_a_limit_and_a_stable_rate_leaves_a_mean_unless_asked_otherwise(settings):
    wsd, timed = {"schedule.kind": "wsd", "max_steps": 40}, {"max_time": "1h"}
    for values, wanted in (
        ({}, "schedule"),
        (wsd, "schedule"),
        (timed, "schedule"),
        ({**wsd, **timed}, "average"),
        ({**wsd, **timed, "cooldown": "schedule"}, "schedule"),
        ({**wsd, **timed, "cooldown": "session"}, "session"),
    ):
        assert settings(values).with_cooldown().cooldown == wanted, values


def test_weights_that_cool_down_already_are_not_averaged(settings, monkeypatch):
    Clock(monkeypatch)
    stopped = train(settings({**AVERAGED, "max_steps": 24}))  # the cooldown is planned from step 15 or so on
    assert stopped.reason == "max_time" and stopped.model.name == f"step-{stopped.step:08d}"
    assert not (stopped.run / "final").exists()


def test_a_session_that_is_stopped_before_its_end_leaves_no_mean(settings, monkeypatch):
    Clock(monkeypatch)
    stopped = train(settings(AVERAGED), StopAfter(step=19))
    assert stopped.reason == "sigterm" and not (stopped.run / "final").exists()


def test_after_a_rollback_the_mean_begins_anew_and_a_high_loss_is_left_out():
    model = torch.nn.Linear(2, 1, bias=False)
    trainer = SimpleNamespace(
        ranks=SINGLE_PROCESS, cooling=False, guards=SimpleNamespace(state=SimpleNamespace(high=0)),
        state=SimpleNamespace(step=0), save_s=0.0, evaluation_s=0.0,
    )  # fmt: skip
    average, deadline = WeightAverage(Parallel(model), SINGLE_PROCESS), Deadline(1e6, lambda: 1e6)
    for step, value, high in ((1, 1.0, 0), (2, 3.0, 0), (3, 99.0, 1), (2, 5.0, 0), (3, 6.0, 0)):
        trainer.state.step, trainer.guards.state.high = step, high
        model.weight.data.fill_(value)
        loop._average(trainer, average, deadline)
    assert (average.count, average.first_step, average.last_step) == (2, 2, 3)
    average.give()
    assert model.weight.tolist() == [[5.5, 5.5]]


def test_killed_or_stopped_in_mid_cooldown_the_run_goes_on_from_the_stable_phase(
    settings, tmp_path, monkeypatch, weights
):
    train(settings(WSD))
    config = settings({**TIMED, "output": tmp_path / "sessions"})
    with monkeypatch.context() as patch:
        Clock(patch)
        stopped = train(config, StopInCooldown())
    assert stopped.reason == "sigterm" and stopped.exit_code == 75
    assert stopped.model.name == f"step-{stopped.step:08d}" and not (config.output / "final").exists()
    assert train(settings({**WSD, "output": config.output})).status == "done"
    assert weights(config.output / "final") == weights(tmp_path / "run" / "final")


def test_a_run_that_ends_within_the_session_needs_no_branch(settings, monkeypatch, recorder):
    Clock(monkeypatch)
    assert train(settings({**TIMED, "max_steps": 15}), recorder).status == "done"
    assert not recorder.named("cooldown")


def test_without_cooldown_the_stopped_run_is_a_model_that_exports(settings, monkeypatch, tmp_path):
    from ptbr_slm_export import export_model

    with monkeypatch.context() as patch:
        Clock(patch)
        stopped = train(settings({"max_time": "163s", "max_steps": 40}))
    assert (stopped.step, stopped.exit_code) == (6, 75) and stopped.bits_per_byte is not None
    assert (stopped.run / "report" / "report.html").is_file()
    exported = export_model(stopped.model, tmp_path / "export", precision="fp32")
    assert (exported.folder / "model.onnx").is_file()


def test_the_session_may_have_begun_before_this_process(monkeypatch):
    an_hour_ago = time.time() - 3600
    assert session_age(str(an_hour_ago))() == pytest.approx(3600, abs=5)
    iso = datetime.fromtimestamp(an_hour_ago, UTC).isoformat()
    assert session_age(iso)() == pytest.approx(3600, abs=5)
    local = datetime.fromtimestamp(an_hour_ago).isoformat()
    assert session_age(local)() == pytest.approx(3600, abs=5)
    assert session_age("kaggle")() >= session_age()() - 0.1, "process 1 is older than this one"


def test_ranks_that_are_started_again_count_from_when_the_launcher_was_started(monkeypatch):
    monkeypatch.delenv(session.SESSION_START_VARIABLE, raising=False)
    mark_session_start()
    started = os.environ.pop(session.SESSION_START_VARIABLE)
    code = "from ptbr_slm.train.session import session_age; print(session_age()())"
    environment = {**os.environ, session.SESSION_START_VARIABLE: str(float(started) - 1000)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert float(done.stdout) > 1000


@pytest.mark.parametrize("start", ["ontem", "2026-13-01", "9999999999"])
def test_a_start_that_is_no_time_or_lies_ahead_is_refused(start):
    with pytest.raises(SlmError) as caught:
        session_age(start)
    assert caught.value.code == "E_CONFIG" and "--session-start kaggle" in caught.value.hint


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_wall_clock_that_jumps_neither_ends_nor_lengthens_a_session(settings, monkeypatch, jump):
    honest_time = time.time

    class Jumping(Recorder):
        def event(self, event: Event) -> None:
            super().event(event)
            if isinstance(event, Step):
                monkeypatch.setattr(time, "time", lambda: honest_time() + jump)

    result = train(settings({"max_time": "9h"}), Jumping())
    assert result.status == "done" and 0 < result.seconds < 100


def test_settings_without_effect_are_refused(settings):
    for values in (
        {"session_start": "kaggle"},
        {"cooldown": "session"},
        {"cooldown": "session", "max_time": "1h"},
        {"cooldown": "average", "max_time": "1h"},
    ):
        with pytest.raises(SlmError) as caught:
            settings(values)
        assert caught.value.code == "E_USAGE"
    for end in ("session", "average"):
        settings({"cooldown": end, "max_time": "1h", "schedule.kind": "wsd"})


def test_the_branch_begins_when_its_share_of_the_session_is_left():
    age = [0.0]
    deadline = Deadline(1103.0, lambda: age[0], began_s=100.0, last_part=0.2)
    age[0] = 880.0
    assert deadline.in_last_part(step_s=10, save_s=0) is None
    age[0] = 895.0
    assert deadline.in_last_part(step_s=10, save_s=0) == 205.0
    assert Deadline(None, lambda: 1e9, last_part=0.2).in_last_part(1, 1) is None
    assert Deadline(1.0, lambda: 1e9).in_last_part(1, 1) is None
