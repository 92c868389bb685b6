"""What follows from the settings of a tuning, and how they are told."""

from __future__ import annotations

import pytest
from listeners import Recorder

from ptbr_slm.train.config_file import from_values, load_values, to_toml
from ptbr_slm.tune import config as defaults
from ptbr_slm.tune.config import TuneConfig, default_learning_rate
from ptbr_slm.tune.spec import TuneSpec, dry_run


def test_epochs_become_steps_whatever_cuts_a_step(settings):
    for rows, batch_size, accum, steps in ((100, 4, 1, 75), (100, 4, 2, 38), (3, 8, 1, 1), (1, 1, 1, 3)):
        config = settings(max_steps="auto", tune__epochs=3.0, batch_size=batch_size, grad_accum=accum)
        assert config.with_steps(rows).max_steps == steps


def test_without_sizes_a_step_is_a_share_of_an_epoch_within_limits(settings):
    auto = settings(max_steps="auto", batch_size="auto", grad_accum=1)
    middle, most = 40 * defaults.STEPS_PER_EPOCH, defaults.MOST_STEP_TOKENS // auto.seq_len
    for rows, sequences in ((1, defaults.FEWEST_STEP_ROWS), (middle, 40), (10**6, most)):
        config = auto.with_steps(rows)
        assert config.step_sequences == sequences
        assert config.max_steps == max(1, round(3 * rows / sequences))


def test_the_rate_follows_from_size_method_and_optimizer():
    assert [default_learning_rate(n, "full") for n in (85e6, 400e6, 800e6)] == [3e-4, 1e-4, 5e-5]
    assert default_learning_rate(85e6, "lora") == 1e-3
    assert default_learning_rate(85e6, "full", "muon") == pytest.approx(7.5e-4)


def test_the_warm_up_is_a_twentieth_of_the_steps(settings):
    assert settings(max_steps=200).with_defaults(10**6).schedule.warmup_steps == 10
    assert settings(max_steps=3).with_defaults(10**6).schedule.warmup_steps == 1


def test_settings_are_read_back_from_their_toml(settings, text, tmp_path):
    config = settings(tune__replay=0.1, tune__replay_data=text, tune__evaluation_sets=["a", "b"])
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert from_values(load_values(tmp_path / "c.toml"), TuneConfig) == config


def test_a_dry_run_counts_the_replay_and_plans_for_masked_documents(settings, text):
    recorder = Recorder()
    plain = dry_run(settings(max_steps="auto"), TuneSpec(), recorder)
    replayed = dry_run(
        settings(max_steps="auto", tune__replay=0.5, tune__replay_data=text), TuneSpec(), recorder
    )
    assert replayed.sequences == 2 * plain.sequences
    assert [found.epochs for found in (plain, replayed)] == pytest.approx([3, 3], rel=0.1)
    assert plain.plan.request.document_mask
    assert len(recorder.named("conversations")) == 2
