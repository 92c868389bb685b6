"""The learning rate is a pure function of the step."""

from __future__ import annotations

import itertools
import math

import pytest

from ptbr_slm.train.config import OptimizerConfig, ScheduleConfig
from ptbr_slm.train.schedule import cooldown_factor, lr_factor, momentum_at

COSINE = ScheduleConfig(kind="cosine", warmup_steps=10, min_lr_ratio=0.1)
WSD = ScheduleConfig(kind="wsd", warmup_steps=10, cooldown_fraction=0.5)


@pytest.mark.parametrize("schedule", [COSINE, WSD])
def test_warmup_rises_linearly_and_never_starts_at_zero(schedule):
    factors = [lr_factor(schedule, step, 100) for step in range(10)]
    assert factors == pytest.approx([(i + 1) / 10 for i in range(10)])


def test_cosine_falls_from_one_to_its_floor():
    factors = [lr_factor(COSINE, step, 110) for step in range(10, 111)]
    assert factors[0] == 1.0 and factors[-1] == pytest.approx(0.1)
    assert factors[50] == pytest.approx(0.55)
    assert all(a > b for a, b in itertools.pairwise(factors))


def test_wsd_is_flat_and_then_cools_down_to_zero():
    factors = [lr_factor(WSD, step, 110) for step in range(10, 111)]
    assert set(factors[:51]) == {1.0}
    assert factors[75] == pytest.approx(0.5) and factors[100] == 0.0


def test_without_cooldown_wsd_stays():
    schedule = ScheduleConfig(kind="wsd", warmup_steps=0, cooldown_fraction=0.0)
    assert {lr_factor(schedule, step, 50) for step in range(51)} == {1.0}


def test_steps_beyond_the_end_keep_the_last_rate():
    assert lr_factor(COSINE, 10_000, 100) == pytest.approx(0.1)
    assert lr_factor(ScheduleConfig(warmup_steps=5), 0, 5) == 0.2


def test_a_schedule_in_minutes_follows_the_clock_not_the_steps():
    timed = ScheduleConfig(kind="wsd", warmup_steps=2, cooldown_fraction=0.5, minutes=2)
    assert lr_factor(timed, 500, 1_000_000, elapsed_s=59) == 1.0
    assert lr_factor(timed, 500, 1_000_000, elapsed_s=90) == pytest.approx(0.5)
    assert lr_factor(timed, 3, 1_000_000, elapsed_s=120) == 0.0
    assert math.isclose(lr_factor(timed, 0, 1_000_000, elapsed_s=119), 0.5)


@pytest.mark.parametrize("shape", ["linear", "1-sqrt"])
def test_a_cooldown_falls_from_one_to_zero_and_stays_there(shape):
    factors = [cooldown_factor(done / 20, shape) for done in range(-2, 23)]
    assert factors[:3] == [1.0] * 3 and factors[-3:] == [0.0] * 3
    assert all(a > b for a, b in itertools.pairwise(factors[2:-2]))
    assert cooldown_factor(0.25, shape) == {"linear": 0.75, "1-sqrt": 0.5}[shape]


@pytest.mark.parametrize("shape", ["linear", "1-sqrt"])
def test_a_planned_cooldown_is_the_one_on_demand_over_its_share_of_the_run(shape):
    schedule = ScheduleConfig(kind="wsd", warmup_steps=0, cooldown_fraction=0.5, cooldown_shape=shape)
    for step in range(50, 101):
        assert lr_factor(schedule, step, 100) == pytest.approx(cooldown_factor((step - 50) / 50, shape))


def test_the_momentum_rises_evenly_and_stays():
    settings = OptimizerConfig(name="muon", momentum_warmup_steps=100)
    momenta = [momentum_at(settings, step) for step in range(130)]
    assert momenta[0] == 0.85 and momenta[50] == pytest.approx(0.9) and set(momenta[100:]) == {0.95}
    assert all(a < b for a, b in itertools.pairwise(momenta[:101]))
    assert momentum_at(OptimizerConfig(name="muon", momentum_warmup_steps=0), 0) == 0.95
