"""What a plan warns of: a step that is mostly communication, and too few tokens for the size."""

from __future__ import annotations

import re

import pytest

from ptbr_slm.config import model_config
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.planning.advice import LITTLE, exchange_note, exchange_share, notes, tokens_note
from ptbr_slm.train.planning.choice import Machine, Request, Setting, choose
from ptbr_slm.train.planning.hardware import hardware

SEED = {
    "model_size": "400m",
    "batch_size": 2,
    "grad_accum": 16,
    "seq_len": 256,
    "max_steps": 50_000,
}
"""The documented command."""


def judged(gpu: str = "t4x2", **changed: object) -> tuple[TrainConfig, Request, Setting, Machine]:
    """A run as the planner would decide it on these cards."""
    config = from_values({"data": "d", "output": "o", **SEED, **changed})
    machine = hardware(gpu)
    request = Request(
        model=model_config(config.model_size or "", max_seq_len=config.seq_len),
        sequences=config.step_sequences,
        seq_len=config.seq_len,
        precision=machine.precision,
        batch_size=config.batch_size or None,
    )
    setting = choose(request, machine.machine)
    assert setting is not None
    return config, request, setting, machine.machine


def test_the_documented_command_is_told_what_it_costs_on_two_cards_and_what_to_type():
    exchange, tokens = notes(*judged())
    assert "1,6 GB" in exchange and "--grad-accum" in exchange and "calculado" in exchange
    assert "1,0 por parâmetro" in tokens and "--model-size 160m --batch-size auto" in tokens
    assert "ptbr-slm plan --hours" in tokens


def test_what_is_proposed_does_reduce_the_exchange_and_reads_the_same_tokens():
    asked = judged()
    note = exchange_note(*asked)
    accum, steps = (int(re.search(rf"--{name} (\d+)", note)[1]) for name in ("grad-accum", "max-steps"))
    better = judged(grad_accum=accum, max_steps=steps)
    assert exchange_share(*better[1:]) <= LITTLE < exchange_share(*asked[1:])
    assert better[0].step_tokens * steps == pytest.approx(asked[0].step_tokens * 50_000, rel=0.01)
    assert not exchange_note(*better)


def test_one_card_exchanges_nothing():
    assert exchange_share(*judged("t4")[1:]) == 0 and not exchange_note(*judged("t4"))


@pytest.mark.parametrize(
    "changed",
    [
        {"max_steps": 500_000},  # ten tokens a parameter
        {"model_size": "mini", "max_steps": 10},  # minutes: one is trying things out
        {"schedule.minutes": 3.0},
    ],
)
def test_nobody_is_told_who_need_not_be(changed):
    assert not any("por parâmetro" in note for note in notes(*judged(**changed)))


def test_what_is_tuned_or_continued_is_not_judged_by_its_tokens():
    _, *decided = judged(max_steps=10)
    config = from_values({"data": "d", "output": "o", "init_from": "m", "max_steps": 10})
    assert notes(config, *decided) == []


def test_a_small_new_model_of_a_large_size_names_no_smaller_one_that_is_not_there():
    note = tokens_note(*judged(model_size="85m", max_steps=100))
    assert "por parâmetro" in note and "--model-size" not in note
