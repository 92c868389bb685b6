"""The draft layer's decision: asked while it pays, given up and tried again while it does not."""

from __future__ import annotations

import numpy as np
import pytest
from toy_engine import ToyEngine

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.batch import Batch
from ptbr_slm.runtime.drafting.costs import StepCosts
from ptbr_slm.runtime.drafting.layer import DraftScores, LayerDrafter
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sequence import PromptState, make_sequences


class DraftingToy(ToyEngine):
    """A toy whose next token follows from the last one, and whose guesses are right, or never."""

    draft_acceptance = 0.5
    right = True

    def draft(self, slot, token):
        mixed = hash((token,))
        scores = self.table[mixed % 997] + self.table[mixed // 997 % 991]
        return DraftScores(np.arange(len(scores)), scores if self.right else -scores)


def finish(engine, prompt, **options):
    """The result of one text, and how often the engine ran."""
    [sequence] = make_sequences(engine, [PromptState(prompt)], SamplingParams(**options))
    chunks = []
    sequence.deliver = chunks.append
    batch = Batch(engine)
    batch.submit([sequence])
    before = len(engine.runs)
    while batch.sequences:
        batch.decode()
        batch.prefill()
    return chunks[-1].result, len(engine.runs) - before


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"seed": 5, "temperature": 0.5}, {"seed": 1, "logprobs": 2}]
)
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("use", ["always", "auto"])
def test_the_text_is_the_same_whatever_the_guesses_are(tokenizer, options, right, use):
    options = {**options, "max_new_tokens": 200, "ignore_eos": True}
    plain, runs = finish(DraftingToy(tokenizer, memory=1), [7, 8], draft="never", **options)
    engine = DraftingToy(tokenizer, memory=1)
    engine.right = right
    found, fewer = finish(engine, [7, 8], draft=use, **options)
    assert (found.tokens, found.text, found.logprobs) == (plain.tokens, plain.text, plain.logprobs)
    assert plain.drafted == 0 and found.drafted > 0
    assert fewer == runs - found.accepted
    if use == "always" and right and options.get("temperature") == 0:
        assert found.accepted == found.drafted > 90
    if use == "always" and not right:
        assert found.drafted > 190 and found.accepted < 20


def test_a_guess_never_runs_past_the_context_or_the_tokens_asked_for(tokenizer):
    for options in ({"max_new_tokens": 500}, {"max_new_tokens": 7}, {"max_new_tokens": 1}):
        engine = DraftingToy(tokenizer, memory=1, context=64)
        found, _ = finish(engine, [7, 8], temperature=0.0, draft="always", ignore_eos=True, **options)
        assert len(found.tokens) == min(options["max_new_tokens"], 62)


def test_guesses_that_no_layer_can_make_are_refused(tokenizer):
    with pytest.raises(SlmError, match="camada que palpita") as caught:
        finish(ToyEngine(tokenizer), [7, 8], draft="always")
    assert caught.value.code == "E_SAMPLING" and "ptbr-slm draft" in caught.value.hint


def costs_of(two: float, guess: float) -> StepCosts:
    costs = StepCosts()
    for _ in range(9):
        costs.passed(1, 0.003)
        costs.passed(2, 0.003 * two)
        costs.guessed(0.003 * guess)
    return costs


def steps_per_token(costs: StepCosts, chance_of_being_right: float, tokens: int = 6000) -> float:
    """What a token of one long text costs, in plain steps; 1 without a draft layer."""
    chance = np.random.default_rng(1)
    drafter = LayerDrafter(0.5)
    spent, made = 0.0, 0
    while made < tokens:
        if drafter.wants(costs):
            right = bool(chance.random() < chance_of_being_right)
            drafter.learn(1, int(right), costs)
            spent += costs.relative(2) + costs.guess
            made += 1 + right
        else:
            spent += 1
            made += 1
    return spent / made


@pytest.mark.parametrize(("two", "guess"), [(1.1, 0.06), (1.5, 0.1), (2.0, 0.2)])
def test_what_does_not_pay_costs_two_per_cent_at_most(two, guess):
    even = two + guess - 1
    for chance_of_being_right in (0.0, 0.5 * even, 0.9 * even, even):
        assert steps_per_token(costs_of(two, guess), min(1.0, chance_of_being_right)) <= 1.025


def test_what_pays_is_used_nearly_always():
    costs = costs_of(1.12, 0.07)
    for chance_of_being_right in (0.4, 0.5, 0.7):
        best = (1.12 + 0.07) / (1 + chance_of_being_right)
        assert steps_per_token(costs, chance_of_being_right) < 1.02 * best


def test_a_text_begins_with_what_the_texts_before_it_met():
    costs = costs_of(1.15, 0.1)
    assert steps_per_token(costs, 0.0) > 1.0
    assert steps_per_token(costs, 0.0, tokens=150) < 1.01  # 0.5, from its training, is not believed again
    for _ in range(200):
        costs.came_true(1)
    drafter = LayerDrafter(0.0)
    assert sum(drafter.wants(costs) for _ in range(50)) > 40


def test_costs_between_and_beyond_what_was_measured():
    costs = StepCosts()
    assert costs.relative(1) == 1 and costs.relative(3) == pytest.approx(1.6)  # nothing is known yet
    costs.passed(1, 0.004)
    costs.passed(1, 0.002)
    costs.passed(1, 0.9)  # something else took the machine
    costs.passed(2, 0.0044)
    assert costs.relative(2) == pytest.approx(1.1)
    costs.passed(5, 0.0104)
    assert costs.relative(3) == pytest.approx(1.6)
    assert costs.relative(7) == pytest.approx(3.6)
    assert costs.guess == 0
    costs.guessed(0.0004)
    assert costs.guess == pytest.approx(0.1)
