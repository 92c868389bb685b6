"""A run goes on with what it began with, whatever the defaults have become since."""

from __future__ import annotations

import pytest
from listeners import StopAfter

from ptbr_slm.errors import SlmError
from ptbr_slm.train.config import as_begun
from ptbr_slm.train.config_file import load_config
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train

OPEN = {
    "optimizer.name": "auto",
    "optimizer.learning_rate": None,
    "schedule.kind": "auto",
    "schedule.warmup_steps": None,
}
BEGAN = {
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 0.01,
    "schedule.kind": "cosine",
    "schedule.warmup_steps": 3,
}
"""What the defaults were, or may have been, when the run began."""


@pytest.fixture
def without(settings):
    """The settings of a command that says nothing of OPEN."""

    def make(values=None):
        return settings({**OPEN, **(values or {})})

    return make


def course(config):
    return [(r["step"], r["loss"], r["learning_rate"]) for r in read_metrics(config.output / "metrics.jsonl")
            if r["event"] == "step"]  # fmt: skip


@pytest.fixture
def whole(settings, tmp_path, weights):
    """The course and the weights of a run of BEGAN that nothing stopped."""
    config = settings({**BEGAN, "output": tmp_path / "whole"})
    train(config)
    return course(config), weights(config.output / "final")


def test_the_same_command_goes_on_as_the_run_began_and_not_with_the_defaults_of_today(
    settings, without, whole, weights
):
    train(settings(BEGAN), StopAfter(step=4))
    config = without()
    assert train(config).status == "done"
    assert (course(config), weights(config.output / "final")) == whole


def test_a_run_goes_on_from_its_own_config_file(settings, whole, weights):
    train(settings(BEGAN), StopAfter(step=4))
    began = settings(BEGAN)
    config = load_config(began.output / "config.resolved.toml")
    assert train(config).status == "done"
    assert (course(config), weights(config.output / "final")) == whole


def test_what_is_asked_for_is_not_taken_from_the_run(settings, without):
    train(settings(BEGAN), StopAfter(step=4))
    with pytest.raises(SlmError) as caught:
        train(without({"optimizer.name": "muon"}))
    assert caught.value.code == "E_CONFIG_CHANGED"
    assert "optimizer.name adamw -> muon" in caught.value.message


def test_another_optimizer_does_not_get_the_rate_of_the_one_before(settings, without):
    begun = {**BEGAN, "optimizer.learning_rate": 0.5}
    assert as_begun(without(), begun).optimizer.learning_rate == 0.5
    assert as_begun(without({"optimizer.name": "muon"}), begun).optimizer.learning_rate is None


def test_a_new_run_has_muon_and_wsd_and_one_in_shards_adamw(without):
    new = without().with_defaults(10_000_000)
    assert (new.optimizer.name, new.schedule.kind) == ("muon", "wsd")
    sharded = without({"parallel": "fsdp"}).with_defaults(10_000_000)
    assert (sharded.optimizer.name, sharded.schedule.kind) == ("adamw", "wsd")
    assert new.optimizer.learning_rate > sharded.optimizer.learning_rate


def test_a_run_that_an_earlier_version_of_a_notebook_began_goes_on_as_it_began(
    settings, without, tmp_path, monkeypatch, whole, weights
):
    train(settings({**BEGAN, "output": tmp_path / "kaggle" / "input" / "before" / "run"}), StopAfter(step=4))
    monkeypatch.setenv("PTBR_SLM_KAGGLE_ROOT", str(tmp_path / "kaggle"))
    config = without()
    assert train(config).status == "done"
    assert (course(config), weights(config.output / "final")) == whole


WSD = {"schedule.kind": "wsd", "schedule.warmup_steps": 2, "schedule.cooldown_fraction": 0.5}


@pytest.mark.parametrize("steps", [10, 24])
def test_a_run_in_its_stable_phase_takes_another_length_and_is_the_run_of_that_length(
    settings, tmp_path, weights, steps
):
    train(settings({**WSD, "max_steps": steps, "output": tmp_path / "whole"}))
    train(settings({**WSD, "max_steps": 16}), StopAfter(step=4))
    config = settings({**WSD, "max_steps": steps})
    assert train(config).step == steps
    assert weights(config.output / "final") == weights(tmp_path / "whole" / "final")


@pytest.mark.parametrize(("until", "steps"), [(11, 24), (8, 10)])
def test_a_run_whose_rate_has_fallen_or_should_have_asks_before_its_length_changes(settings, until, steps):
    train(settings({**WSD, "max_steps": 16}), StopAfter(step=until))
    with pytest.raises(SlmError) as caught:
        train(settings({**WSD, "max_steps": steps}))
    assert caught.value.code == "E_CONFIG_CHANGED" and "max_steps 16 ->" in caught.value.message


def test_a_run_of_before_the_momentum_rose_goes_on_without(settings, without):
    muon = {**BEGAN, "optimizer.name": "muon"}
    assert as_begun(without(), muon).optimizer.momentum_warmup_steps == 0
    began = {**muon, "optimizer.momentum_warmup_steps": 7}
    assert as_begun(without(), began).optimizer.momentum_warmup_steps == 7
    new = without().with_defaults(10**6).optimizer
    assert new.momentum_warmup_steps == settings().max_steps // 2 and new.momentum_start == 0.85


def test_a_rising_momentum_resumes_bit_for_bit(settings, tmp_path, weights):
    muon = {"optimizer.name": "muon", "optimizer.momentum_warmup_steps": 6}
    train(settings({**muon, "output": tmp_path / "whole"}))
    train(settings(muon), StopAfter(step=3))
    config = settings(muon)
    train(config)
    assert weights(config.output / "final") == weights(tmp_path / "whole" / "final")
    train(settings({**muon, "output": tmp_path / "flat", "optimizer.momentum_warmup_steps": 0}))
    assert weights(tmp_path / "flat" / "final") != weights(tmp_path / "whole" / "final")
