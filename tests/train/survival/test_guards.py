"""The guards alone: what is a spike, when dropping steps becomes a diagnosis, which data are left out."""

from __future__ import annotations

import dataclasses
import json
import math
import random

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.train.batches import remaining_windows
from ptbr_slm.train.config import GuardConfig
from ptbr_slm.train.survival.guards import Guards, GuardState, StepFigures, last_good

SETTINGS = GuardConfig(spike_steps=3, spike_after=20)


def figures(step: int, loss: float = 3.0, **changes) -> StepFigures:
    values = {
        "cursor": 8 * (step - 1),
        "windows": 8,
        "grad_norm": 1.0,
        "learning_rate": 1e-3,
        "applied": True,
    }
    return StepFigures(step=step, loss=loss, **{**values, **changes})


def noisy(count: int, level: float = 3.0, noise: float = 0.05) -> list[float]:
    draw = random.Random(0)
    return [draw.gauss(level, noise) for _ in range(count)]


def feed(guards: Guards, losses: list[float], first: int = 1) -> list[str]:
    return [guards.judge(figures(first + i, loss)) for i, loss in enumerate(losses)]


def diagnosis(guards: Guards, step: StepFigures) -> SlmError:
    with pytest.raises(SlmError) as caught:
        guards.judge(step)
    assert caught.value.code == "E_TRAINING_DIVERGED"
    return caught.value


def test_a_spike_is_a_loss_that_stays_far_above_its_mean_for_m_steps():
    guards = Guards(SETTINGS)
    assert set(feed(guards, noisy(60))) == {"good"}
    assert feed(guards, [4.0, 3.0, 4.0, 4.0, 4.0], 61) == ["high", "good", "high", "high", "spike"]
    assert guards.state.high_step == 63
    assert guards.state.high_cursor == 8 * 61, "the data of the step before are suspect, too"


def test_high_losses_do_not_move_the_mean_that_judges_them():
    guards = Guards(SETTINGS)
    feed(guards, noisy(60))
    before = guards.limit
    feed(guards, [9.0, 9.0], 61)
    assert guards.limit == before


def test_the_fast_fall_of_the_first_steps_and_a_loss_without_noise_are_no_spikes():
    falling = [3 + 7 * math.exp(-step / 15) for step in range(200)]
    assert set(feed(Guards(SETTINGS), falling)) == {"good"}
    assert set(feed(Guards(SETTINGS), [2.0] * 50 + [2.05] * 50)) == {"good"}
    assert set(feed(Guards(SETTINGS), [3.0, 9.0] * 10)) == {"good"}, "too few losses to judge"


def test_no_false_alarm_in_ten_thousand_noisy_steps():
    assert "spike" not in feed(Guards(GuardConfig()), noisy(10_000, noise=0.3))


def test_zero_sigmas_turn_spikes_off():
    guards = Guards(GuardConfig(spike_sigmas=0, spike_steps=1, spike_after=1))
    assert set(feed(guards, [3.0] * 30 + [99.0] * 9)) == {"good"}


def test_state_survives_json_and_judges_on_as_before():
    losses = [*noisy(60), 4.0, 4.0]
    whole, first = Guards(SETTINGS), Guards(SETTINGS)
    feed(whole, losses)
    feed(first, losses[:61])
    body = json.loads(json.dumps(dataclasses.asdict(first.state)))
    second = Guards(SETTINGS, GuardState(**body))
    feed(second, losses[61:], 62)
    assert second.state == whole.state
    assert second.judge(figures(63, 4.0)) == "spike"


def test_bad_steps_are_dropped_and_the_third_in_a_row_is_a_diagnosis_with_all_facts():
    guards = Guards(GuardConfig(max_bad_steps=3), run="runs/x")
    bad = {"applied": False, "grad_norm": math.nan, "bad_parts": [5], "parts": 8}
    assert guards.judge(figures(7, math.nan, **bad)) == guards.judge(figures(8, math.nan, **bad)) == "dropped"
    assert guards.judge(figures(9)) == "good", "a good step starts the count again"
    for step in (10, 11):
        guards.judge(figures(step, math.nan, **bad))
    error = diagnosis(guards, figures(12, math.nan, **bad))
    for fact in (
        "do passo 10 ao 12",
        "taxa 1.00e-03",
        "janelas 88 a 95",
        "micro-lote 5 de 8",
        "gradiente nan",
    ):
        assert fact in error.message, error.message
    assert "--learning-rate 5.0e-04 --allow-config-change" in error.hint and error.where == "runs/x"


def test_a_loss_scale_at_its_floor_is_a_diagnosis_with_its_history():
    guards, scale = Guards(GuardConfig()), 16.0
    overflow = {"applied": False, "grad_norm": math.inf}
    for step in range(1, 4):
        scale /= 2
        assert guards.judge(figures(step, scale=scale, **overflow)) == "dropped"
    error = diagnosis(guards, figures(4, scale=1.0, **overflow))
    assert "escala 8 (passo 1) -> 4 (passo 2) -> 2 (passo 3) -> 1 (passo 4)" in error.message
    assert "--precision fp32" in error.hint


def test_too_many_overflows_in_a_row_or_in_a_window_are_a_diagnosis():
    overflow = {"applied": False, "grad_norm": math.inf, "scale": 1024.0}
    guards = Guards(GuardConfig())
    for step in range(1, 25):
        guards.judge(figures(step, **overflow))
    assert "25 passos seguidos" in diagnosis(guards, figures(25, **overflow)).message
    guards = Guards(GuardConfig())
    with pytest.raises(SlmError, match="51 dos últimos 100 passos"):
        for step in range(1, 200):
            guards.judge(figures(step, **overflow) if step % 5 < 3 else figures(step, scale=1024.0))


def test_rare_overflows_go_on_for_ever():
    guards = Guards(GuardConfig())
    for step in range(1, 2000):
        skipped = {"applied": False, "grad_norm": math.inf} if step % 20 == 0 else {}
        assert guards.judge(figures(step, scale=1024.0, **skipped)) == ("dropped" if skipped else "good")


def test_the_cursor_jumps_over_windows_left_out():
    assert remaining_windows(0, 8, []) == ([range(8)], 8)
    assert remaining_windows(0, 8, [[8, 16]]) == ([range(8)], 8)
    assert remaining_windows(8, 8, [[8, 16]]) == ([range(16, 24)], 24)
    assert remaining_windows(4, 8, [[8, 16]]) == ([range(4, 8), range(16, 20)], 20)
    found = remaining_windows(4, 8, [[6, 10], [8, 16], [18, 19]])
    assert found == ([range(4, 6), range(16, 18), range(19, 23)], 23)


def test_the_good_checkpoint_is_one_whose_weights_were_seen_to_do_well():
    assert last_good([2, 4, 6], 6) == 4, "the loss of step 5 was measured with the weights of step 4"
    assert last_good([2, 4, 6], 5) == 2, "step 4's weights were first measured in the spike"
    assert last_good([4, 6], 5) is None
