"""How long a run is, and how large its steps, where the command leaves that open."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptbr_slm.train.config import AUTO, as_begun, default_tokens_per_step
from ptbr_slm.train.config.defaults import step_tokens
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.planning.length import Extent, length_reason, with_step, with_steps


def config_of(**values):
    return from_values({"data": Path("d"), "output": Path("o"), **values})


def sized(config, extent, speed=None):
    return with_steps(with_step(config.with_cooldown(), extent, speed), extent)


def test_twenty_tokens_a_parameter_in_the_steps_that_info_recommends():
    extent = Extent(parameters=87_500_000, train_tokens=10**10)
    config = sized(config_of(seq_len=1024), extent)
    assert config.step_tokens == default_tokens_per_step(87_500_000, 1024) == 131_072
    assert config.max_steps == round(20 * 87_500_000 / 131_072)
    assert "20 tokens por parâmetro" in length_reason(config_of(seq_len=1024), config, extent)


def test_few_data_are_read_four_times_in_smaller_steps():
    extent = Extent(parameters=87_500_000, train_tokens=700_000)
    config = sized(config_of(), extent)
    assert config.step_tokens == 4096 and config.max_steps == round(4 * 700_000 / 4096)
    assert "os dados 4 vezes" in length_reason(config_of(), config, extent)


@pytest.mark.parametrize(("steps", "tokens"), [(50, 1024), (1000, 8192), (10**6, 131_072)])
def test_few_steps_are_smaller_ones(steps, tokens):
    config = sized(config_of(max_steps=steps), Extent(parameters=87_500_000))
    assert (config.max_steps, config.step_tokens) == (steps, tokens)
    assert length_reason(config_of(max_steps=steps), config, Extent(parameters=87_500_000)) == ""


def test_what_is_asked_for_is_kept_to_the_letter():
    asked = config_of(batch_size=2, grad_accum=16, max_steps=50_000)
    extent = Extent(parameters=394_906_880, train_tokens=10**6)
    assert sized(asked, extent) == asked.with_cooldown()
    config = sized(config_of(tokens_per_step=512), extent)
    assert (config.tokens_per_step, config.max_steps) == (512, round(4 * 10**6 / 512))


def test_a_limit_of_time_makes_steps_smaller_and_the_run_no_shorter():
    extent = Extent(parameters=87_500_000, train_tokens=10**10)
    hour = sized(config_of(max_time="1h"), extent, speed=300.0)
    assert hour.step_tokens == step_tokens(3600 * 300, 256) == 2048
    assert hour.step_tokens * hour.max_steps == pytest.approx(20 * 87_500_000, rel=0.01)
    assert hour.cooldown == "session"
    reason = length_reason(config_of(max_time="1h"), hour, extent)
    assert "em quantas sessões" in reason and "--cooldown schedule" in reason


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"max_steps": 5},
        {"max_time": "1h", "schedule.kind": "cosine"},
        {"max_time": "1h", "schedule.minutes": 3},
        {"max_time": "1h", "cooldown": "schedule"},
    ],
)
def test_only_a_run_by_time_alone_cools_down_at_the_end_of_a_session(values):
    assert config_of(**values).with_cooldown().cooldown == "schedule"
    by_steps = config_of(max_time="1h", max_steps=5)
    assert by_steps.with_cooldown().cooldown == "average", "no step of a run of so many is thrown away"


def test_a_schedule_in_minutes_has_no_end_in_steps():
    config = sized(config_of(**{"schedule.minutes": 3}), Extent(parameters=10**6, train_tokens=10**5))
    assert config.max_steps * config.step_tokens > 10**12


def test_every_rank_has_a_sequence():
    config = sized(config_of(seq_len=1024), Extent(parameters=10**6, train_tokens=5000, ranks=2))
    assert config.step_sequences >= 2


def test_a_run_keeps_its_length_whatever_the_data_say_now():
    begun = {"max_steps": 77, "batch_size": 8, "grad_accum": 2, "seq_len": 256, "schedule.kind": "wsd"}
    config = as_begun(config_of(max_time="1h"), begun)
    assert (config.max_steps, config.tokens_per_step, config.cooldown) == (77, 4096, "session")
    assert as_begun(config_of(max_steps=99), begun).max_steps == 99
    assert as_begun(config_of(seq_len=128), begun).tokens_per_step is None
    assert as_begun(config_of(max_time="1h"), {**begun, "schedule.kind": "cosine"}).cooldown == "schedule"
    assert as_begun(config_of(batch_size=4), begun).batch_size == 4
    assert config_of().batch_size == config_of().max_steps == AUTO
