"""What a draft layer's scores make the sampler guess: what it then chooses, as often as can be."""

from __future__ import annotations

import numpy as np
import pytest

from ptbr_slm.runtime.drafting.layer import DraftScores
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sampling.sampler import Sampler

TOKENS = 60


def right_guesses(noise: float, seeds: int = 400, **options) -> tuple[float, float]:
    """Parts of the guesses, and of the most probable tokens, that the sampler then chose."""
    guessed = probable = 0
    every = np.arange(TOKENS)
    for seed in range(seeds):
        chance = np.random.default_rng(seed)
        logits = (3 * chance.standard_normal(TOKENS)).astype(np.float32)
        expected = logits + (noise * chance.standard_normal(TOKENS)).astype(np.float32)
        sampler = Sampler(SamplingParams(**options), seed, [], TOKENS)
        guess = sampler.guess(DraftScores(every, expected))
        chosen = sampler.choose(logits)
        guessed += guess == chosen
        probable += int(expected.argmax()) == chosen
    return guessed / seeds, probable / seeds


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "top_p": 1.0}, {"top_k": 5}, {"min_p": 0.1}])
def test_more_guesses_come_true_than_the_most_probable_tokens_do(options):
    guessed, probable = right_guesses(0.5, **options)
    assert guessed > probable + 0.02


def test_a_greedy_guess_is_the_most_probable_token():
    assert right_guesses(0.0, temperature=0.0) == (1.0, 1.0)


def test_a_guess_draws_nothing_and_leaves_the_scores_as_they_are():
    logits = np.random.default_rng(1).standard_normal(TOKENS).astype(np.float32)
    scores = DraftScores(np.arange(TOKENS), logits.copy())
    plain, guessing = (Sampler(SamplingParams(), 3, [], TOKENS) for _ in range(2))
    for _ in range(30):
        guessing.guess(scores)
        assert guessing.choose(logits.copy()) == plain.choose(logits.copy())
    assert np.array_equal(scores.scores, logits)


def test_only_what_the_layer_knows_is_guessed():
    scores = DraftScores(np.array([3, 17, 40]), np.array([0.0, 1.0, 0.5], dtype=np.float32))
    for seed in range(50):
        for options in ({}, {"temperature": 3.0, "top_p": 1.0}, {"top_k": 1}, {"min_p": 1.0}):
            assert Sampler(SamplingParams(**options), seed, [], TOKENS).guess(scores) in (3, 17, 40)
