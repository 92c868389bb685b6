"""Two texts that must be the same but for near ties: what the last bits of the logits decide, and no more.

How many tokens a matrix product takes at once, and the CPU's kernels for it, move the last bits of a logit.
A seeded text is therefore the same up to a choice that those bits decide: two logits that are almost equal
(greedy), or a uniform number that lies almost on a border of the cumulative distribution (drawn). Which
choices those are is computed here in float64, from a bound on the movement of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sampling.penalties import Penalties

FP32 = 2e-5
"""What fp32 logits of one model may differ by, however its tokens are grouped (as in `runtime/cache.py`)."""

FP16 = 2e-2
"""As `FP32`, of an fp16 graph: where the last bits of fp32 decide how an fp16 is rounded, a logit of 10 moves
by 2**-7 (half a unit in the last place either way), and what lies before it as much in proportion.
"""

EXP = 2.0**-21
"""Relative error of a float32 exp: 4 units in the last place. NumPy documents 2.52 for its own; a test holds
both samplers to it on the CPU where it runs."""

Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def possible_choices(
    logits: npt.NDArray[np.float32], params: SamplingParams, uniform: float, within: float
) -> set[int]:
    """Every token that the sampler may choose where each of logits (V,) moves by at most `within`.

    logits: after bias and penalties. uniform: the number drawn. Scores are subtracted and divided in float32
    as the samplers do, which is exact to the bit on any CPU; the rest is float64. The set may be too large,
    never too small; where no border is near, it has one token.
    """
    scaled = logits - logits.max()
    if params.temperature == 0:
        if within == 0:
            return {int(logits.argmax())}
        return set(np.flatnonzero(scaled >= -2 * within).tolist())
    scaled /= np.float32(params.temperature)
    scores = scaled.astype(np.float64)
    apart = 2 * within / params.temperature  # two scores that are nearer than this may change places
    ratio = float(np.expm1(apart)) + 2 * EXP  # by how much the ratio of two weights may change
    slack = ratio / 4  # d(a / (a + b)) = c (1 - c) d(log(a / b)), and c (1 - c) is a quarter at most
    weights: Scores = np.exp(scores)
    surely = maybe = np.ones(len(scores), dtype=np.bool_)
    if 0 < params.top_k < len(scores):
        rising = np.sort(scores)
        above = len(scores) - np.searchsorted(rising, scores - apart, side="right") - (apart > 0)
        surely = above < params.top_k
        maybe = len(scores) - np.searchsorted(rising, scores + apart, side="right") < params.top_k
    if params.top_p < 1.0:
        least, most = _above(scores, np.where(surely, weights, 0.0), np.where(maybe, weights, 0.0), apart)
        whole = float(weights[surely].sum()), float(weights[maybe].sum())
        surely = surely & (most < (params.top_p - slack) * whole[0])
        maybe = maybe & (least < (params.top_p + slack) * whole[1])
    if params.min_p > 0.0:
        bar = float(np.float32(params.min_p))
        rivals = apart > 0 and np.count_nonzero(scores >= -apart) > 1
        moves = ratio * ((scores < 0) | rivals)  # the largest has the weight 1, by definition
        surely = surely & (weights >= bar * (1 + moves))
        maybe = maybe & (weights >= bar * (1 - moves))
    # Token i lies between (what is kept before it) and (that and itself), as a share of all that is kept.
    sure, able = np.where(surely, weights, 0.0), np.where(maybe, weights, 0.0)
    before, before_most = np.cumsum(sure) - sure, np.cumsum(able) - able
    after, after_most = sure.sum() - np.cumsum(sure), able.sum() - np.cumsum(able)
    begin = before / (before + weights + np.maximum(after_most, 0.0))
    end = (before_most + weights) / (before_most + weights + np.maximum(after, 0.0))
    return set(np.flatnonzero(maybe & (begin - slack <= uniform) & (uniform <= end + slack)).tolist())


def _above(scores: Scores, sure: Scores, able: Scores, apart: float) -> tuple[Scores, Scores]:
    """The least and the most mass that may come before each token where the largest come first.

    sure and able: (V,) the masses that count at least and at most. Equal scores that do not move come by id.
    """
    order = np.argsort(-scores, kind="stable")
    falling = -scores[order]
    least, most = (np.concatenate([[0.0], np.cumsum(mass[order])]) for mass in (sure, able))
    if apart == 0:
        rank = np.argsort(order, kind="stable")
        return least[rank], most[rank]
    first = np.searchsorted(falling, -scores - apart, side="left")
    last = np.searchsorted(falling, -scores + apart, side="right")
    return least[first], most[last] - able


def choices_at(
    logits: npt.NDArray[np.float32],
    prompt: Sequence[int],
    generated: Sequence[int],
    params: SamplingParams,
    seed: int,
    within: float,
) -> set[int]:
    """Tokens that may follow `prompt` and `generated`, from the model's own logits (V,) there."""
    scores = logits.copy()
    penalties = Penalties(params, prompt, len(scores))
    for token in generated:
        penalties.accept(token)
    penalties.apply(scores)
    # One number a token: see `Sampler`.
    numbers = np.random.Generator(np.random.Philox(seed)).random(len(generated) + 1)
    return possible_choices(scores, params, float(numbers[-1]), within)


def assert_same_but_for_near_ties(
    model: Any, prompt: str, found: Any, expected: Any, within: float = FP32, **options: Any
) -> None:
    """Assert that two results of one prompt (`GenerationResult`) are the same text, token for token, up to a
    choice that a movement of the logits by `within` decides; both must have made one of its possible choices.

    model: the `Model` whose logits say what was possible. options: those of the generation.
    """
    assert found.seed == expected.seed or options.get("temperature") == 0
    ids = model.engine.tokenizer.encode(prompt)
    options.pop("seed", None)  # the first completion's; found.seed is this one's
    if assert_same_tokens(model, ids, found.tokens, expected.tokens, found.seed, within, **options):
        # How a text ends follows from its tokens.
        assert (found.text, found.finish_reason) == (expected.text, expected.finish_reason)


def assert_same_tokens(
    model: Any,
    prompt: Sequence[int],
    found: Sequence[int],
    expected: Sequence[int],
    seed: int = 0,
    within: float = FP32,
    **options: Any,
) -> bool:
    """As `assert_same_but_for_near_ties`, of ids. Whether they are the same to the end."""
    pairs = enumerate(zip(found, expected, strict=False))
    at = next((index for index, (one, other) in pairs if one != other), None)
    if at is None:
        assert len(found) == len(expected)
        return True
    logits = model.logits([*prompt, *found[:at]])[-1][: model.engine.tokenizer.vocab_size]
    possible = choices_at(logits, prompt, found[:at], SamplingParams(**options), seed, within)
    assert {found[at], expected[at]} <= possible, f"token {at} is no near tie: {found} {expected} {possible}"
    return False
