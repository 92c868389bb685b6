"""Sessions that end by the clock: whose clock, what still fits, and a cooled model where one is asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from listeners import Recorder

from ptbr_slm.errors import SlmError
from ptbr_slm.events import Event
from ptbr_slm.storage.manifest import read_manifest
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.train import session, trainer
from ptbr_slm.train.checkpoint.files import list_checkpoints
from ptbr_slm.train.events import Step
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
    ):
        with pytest.raises(SlmError) as caught:
            settings(values)
        assert caught.value.code == "E_USAGE"
    settings({"cooldown": "session", "max_time": "1h", "schedule.kind": "wsd"})


def test_the_branch_begins_when_its_share_of_the_session_is_left():
    age = [0.0]
    deadline = Deadline(1103.0, lambda: age[0], began_s=100.0, cooldown_fraction=0.2)
    age[0] = 880.0
    assert deadline.cooling(step_s=10, save_s=0) is None
    age[0] = 895.0
    assert deadline.cooling(step_s=10, save_s=0) == 205.0
    assert Deadline(None, lambda: 1e9, cooldown_fraction=0.2).cooling(1, 1) is None
    assert Deadline(1.0, lambda: 1e9).cooling(1, 1) is None
