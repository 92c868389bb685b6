"""How many steps a tuning takes, and of how many tokens, where nothing was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptbr_slm.tune.config import TuneConfig, TuneOptions


@pytest.mark.parametrize(
    ("rows", "sequences", "steps"),
    [
        (1, 2, 2),  # one row a step would leave a second card without one
        (8, 2, 12),
        (640, 10, 192),
        (100_000, 32, 9375),  # 32,768 tokens
    ],
)
def test_a_step_is_a_64th_of_an_epoch_two_sequences_at_least(rows, sequences, steps):
    config = TuneConfig(data=Path("x"), output=Path("y"), seq_len=1024).with_steps(rows)
    assert (config.step_sequences, config.max_steps) == (sequences, steps)


def test_what_was_asked_for_stays():
    asked = TuneConfig(
        data=Path("x"), output=Path("y"), seq_len=1024, batch_size=1, tune=TuneOptions(epochs=0.5)
    ).with_steps(8)
    assert (asked.step_sequences, asked.max_steps) == (1, 4)
    assert TuneConfig(data=Path("x"), output=Path("y"), max_steps=7).with_steps(8).max_steps == 7
