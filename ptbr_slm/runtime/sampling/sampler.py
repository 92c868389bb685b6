"""From logits to a token, and log probabilities, in NumPy.

The order is vLLM's (vllm/v1/sample/sampler.py): log probabilities are taken of the model's own logits; then
constraint, logit bias, repetition, frequency and presence penalties, tokens that may not end the text yet;
then greedy choice, or transformers' chain of temperature, top-k, top-p, min-p, and a draw. Tokens are drawn
in the order of their ids, so that a rounding error that swaps two neighbours in probability (in a batch
against alone) does not change the draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.drafting.layer import DraftScores
from ptbr_slm.runtime.results import TokenLogprob
from ptbr_slm.runtime.sampling.constraint import Constraint, build_constraint
from ptbr_slm.runtime.sampling.distribution import Floats, Ids, check_finite, distribution, draw, top_ids
from ptbr_slm.runtime.sampling.params import GREEDY, Draw, SamplingParams
from ptbr_slm.runtime.sampling.penalties import Penalties, bias_arrays, check_tokens
from ptbr_slm.runtime.sampling.scratch import scratch
from ptbr_slm.tokenizer import Tokenizer

_REACH = 0.4
"""How far a draft layer's running sum is taken to be off in its middle, twice: see `Sampler.guess`."""

_LEAST = -9999.0
"""What stands for a probability of zero, as at OpenAI: JSON has no minus infinity."""


class SamplerFactory:
    """A request's sampling, checked against one model; makes the samplers of its texts."""

    def __init__(self, params: SamplingParams, tokenizer: Tokenizer, end_ids: Iterable[int]) -> None:
        """Raises E_SAMPLING for a token or a form that does not fit, E_DEPENDENCY without llguidance."""
        self.params = params
        self._vocab_size = tokenizer.vocab_size
        bias_arrays(params.logit_bias, self._vocab_size)
        check_tokens("stop_token_ids", params.stop_token_ids, self._vocab_size)
        ends = {token for token in end_ids if token < self._vocab_size and not params.ignore_eos}
        self._ends = np.array(sorted(ends.union(params.stop_token_ids)), dtype=np.int64)
        if params.min_tokens and len(self._ends) == self._vocab_size:
            raise SlmError(
                "E_SAMPLING",
                "min_tokens não deixa nenhum token: todos os do vocabulário encerram o texto.",
                where="min_tokens",
                hint="Tire alguns de stop_token_ids.",
            )
        self._constraint = build_constraint(params, tokenizer, end_ids)

    def sampler(self, seed: int, prompt: Sequence[int]) -> Sampler:
        """The sampler of one text. seed: of its draws. prompt: ids before it."""
        constraint = self._constraint.copy() if self._constraint is not None else None
        return Sampler(self.params, seed, prompt, self._vocab_size, constraint, self._ends)


class Sampler:
    """Chooses the tokens of one text, with random draws of its own (`Philox(seed)`)."""

    logprob: TokenLogprob | None = None
    """Of the token chosen last, where `params.logprobs` asks for it."""

    def __init__(
        self,
        params: SamplingParams,
        seed: int,
        prompt: Sequence[int],
        vocab_size: int,
        constraint: Constraint | None = None,
        ends: Ids | None = None,
    ) -> None:
        """ends: tokens that are not chosen before `params.min_tokens` others."""
        self._params = params
        self._random = np.random.Generator(np.random.Philox(seed))
        self._uniform: float | None = None
        penalties = Penalties(params, prompt, vocab_size)
        self._penalties = penalties if penalties.active else None
        self._constraint = constraint
        self._ends = ends
        self._unending = params.min_tokens if ends is not None and len(ends) else 0
        """How many of the next tokens may not be one of `_ends`."""

    @property
    def finished(self) -> bool:
        """Whether a constraint is fulfilled and allows no further token."""
        return self._constraint is not None and self._constraint.finished

    def forced(self) -> list[int]:
        """Ids that a constraint leaves no choice about, next in the text: drafts that are always right."""
        return [] if self._constraint is None else self._constraint.forced()

    def draw(self) -> Draw | None:
        """What an engine needs to make the next choice; None where it takes more than the logits and a draw.

        The same until the next `accept`, so that `choose` can still make the choice in its place.
        """
        params = self._params
        if self._penalties is not None or self._constraint is not None or params.logprobs is not None:
            return None
        if self._unending:
            return None
        if params.temperature == 0:
            return GREEDY
        return Draw(params.temperature, params.top_k, params.top_p, params.min_p, self._next_uniform())

    def choose(self, logits: Floats) -> int:
        """The next token from logits (V,), which are overwritten. Raises E_MODEL_INVALID for NaN, E_SAMPLING
        where a constraint outgrows its limits.
        """
        own = None
        if self._params.logprobs is not None:
            own = scratch(len(logits)).own[: len(logits)]
            np.copyto(own, logits)
        if self._penalties is not None:
            self._penalties.apply(logits)
        if self._unending:
            logits[self._ends] = -np.inf
        if self._constraint is None:
            token = self._pick(logits)
        else:
            allowed = self._constraint.allowed()
            token = int(allowed[self._pick(logits[allowed]) if len(allowed) > 1 else 0])
        if own is not None and self._params.logprobs is not None:
            self.logprob = token_logprob(own, token, self._params.logprobs)
        self.accept(token)
        return token

    def guess(self, expected: DraftScores) -> int:
        """What `choose` would probably choose next, by a draft layer's scores. Draws nothing.

        The choice will be the token in whose share of the running sum the next number lies. The layer's own
        running sum is a little off, less towards its ends: the guess is the token with the largest share
        within reach of the number. Of guesses at temperature 0.8 32 % came true so, 24 % of the most probable
        tokens and 27 % of those exactly at the number (docs/decisions/0113-draft-layer.md).
        """
        if self._params.temperature == 0:
            return int(expected.tokens[expected.scores.argmax()])
        ids, weights = distribution(expected.scores.copy(), self._params)
        uniform = self._next_uniform()
        reach = _REACH * math.sqrt(uniform * (1 - uniform))
        ends = np.cumsum(weights, dtype=np.float64)
        ends /= ends[-1]
        within = np.minimum(ends, uniform + reach)
        within[1:] -= np.maximum(ends[:-1], uniform - reach)
        within[0] -= max(0.0, uniform - reach)
        within[weights == 0] = -1
        index = int(within.argmax())
        return int(expected.tokens[index if ids is None else ids[index]])

    def accept(self, token: int) -> None:
        """Take note of a token of the text. `choose` does it for its own."""
        self._uniform = None
        if self._unending:
            self._unending -= 1
        if self._penalties is not None:
            self._penalties.accept(token)
        if self._constraint is not None:
            self._constraint.accept(token)

    def _pick(self, logits: Floats) -> int:
        """The index of one of logits (n,), which are overwritten."""
        if self._params.temperature == 0:
            index = int(logits.argmax())  # NaN counts as the largest
            check_finite(logits[index])
            return index
        ids, weights = distribution(logits, self._params)
        index = draw(weights, self._next_uniform())
        return index if ids is None else int(ids[index])

    def _next_uniform(self) -> float:
        """The number of the next choice, however often it is asked for."""
        if self._uniform is None:
            self._uniform = float(self._random.random())
        return self._uniform


def token_logprob(logits: Floats, token: int, top: int) -> TokenLogprob:
    """Of `token` and of the `top` most probable tokens, from logits (V,), which stay as they are.

    Before bias, penalties, temperature and constraints, as in vLLM (`raw_logprobs`, its default), so that
    they stay comparable between requests that sample differently.

    exp in float32 of numbers at most 0, summed in float64: within 1e-6 of a float64 log-softmax.
    """
    peak = logits.max()
    weights = np.subtract(logits, peak, out=scratch(len(logits)).floats[: len(logits)])
    total = float(peak) + float(np.log(np.exp(weights, out=weights).sum(dtype=np.float64)))

    def of(index: int) -> float:
        return min(0.0, max(_LEAST, float(logits[index]) - total))

    rank = 1 + int(np.count_nonzero(logits > logits[token]))
    if not top:
        return TokenLogprob(token, of(token), (), rank)
    ids = top_ids(logits, top) if top < len(logits) else np.arange(len(logits))
    ids = ids[np.argsort(-logits[ids], kind="stable")][:top]
    return TokenLogprob(token, of(token), tuple((index, of(index)) for index in ids.tolist()), rank)


def prompt_logprobs(logits: Floats, following: Sequence[int], top: int) -> list[TokenLogprob]:
    """Of the tokens that follow each position, from logits (T, V): call it chunk by chunk.

    following: (T,) for each row the token that comes next. Works row by row: no second (T, V) array.
    """
    return [token_logprob(scores, token, top) for scores, token in zip(logits, following, strict=True)]
