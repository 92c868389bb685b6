"""What is added to and taken from the logits: bias, and penalties for tokens already there.

Only the tokens concerned are touched: a penalty costs by the length of the text, not by the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.sampling.distribution import Floats, Ids
from ptbr_slm.runtime.sampling.params import SamplingParams


class Counts:
    """How often each token came, and the distinct ones as an array that grows in place."""

    def __init__(self, vocab_size: int, tokens: Sequence[int] = ()) -> None:
        """tokens: those that came already."""
        self._times = np.zeros(vocab_size, dtype=np.int32)
        self._ids = np.empty(vocab_size, dtype=np.int64)
        ids, times = np.unique(np.asarray(tokens, dtype=np.int64), return_counts=True)
        self._distinct = len(ids)
        self._ids[: len(ids)] = ids
        self._times[ids] = times

    def add(self, token: int) -> None:
        """Count one more `token`."""
        if not self._times[token]:
            self._ids[self._distinct] = token
            self._distinct += 1
        self._times[token] += 1

    @property
    def ids(self) -> Ids:
        """The distinct tokens."""
        return self._ids[: self._distinct]

    @property
    def times(self) -> Floats:
        """How often each of `ids` came."""
        return self._times[self.ids].astype(np.float32)


class Penalties:
    """Bias and penalties of one text, in vLLM's order: bias, repetition, frequency, presence."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int], vocab_size: int) -> None:
        self._params = params
        self._bias_ids, self._bias = bias_arrays(params.logit_bias, vocab_size)
        self._seen = Counts(vocab_size, prompt) if params.repetition_penalty != 1.0 else None
        counted = params.frequency_penalty != 0.0 or params.presence_penalty != 0.0
        self._generated = Counts(vocab_size) if counted else None

    @property
    def active(self) -> bool:
        """Whether anything at all is to be done."""
        return self._seen is not None or self._generated is not None or len(self._bias_ids) > 0

    def apply(self, logits: Floats) -> None:
        """Change logits (V,) in place."""
        if len(self._bias_ids):
            logits[self._bias_ids] += self._bias
        if self._seen is not None:
            penalise(logits, self._seen.ids, self._params.repetition_penalty)
        if self._generated is not None:
            ids = self._generated.ids
            # OpenAI, "Frequency and presence penalties", of tokens sampled before (the prompt's are not):
            # mu[j] -> mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence
            logits[ids] -= self._generated.times * np.float32(self._params.frequency_penalty) + np.float32(
                self._params.presence_penalty
            )

    def accept(self, token: int) -> None:
        """Count a generated token."""
        if self._seen is not None:
            self._seen.add(token)
        if self._generated is not None:
            self._generated.add(token)


def penalise(logits: Floats, seen: Ids, penalty: float) -> None:
    """Divide positive and multiply negative logits of the `seen` ids, in place."""
    scores = logits[seen]
    logits[seen] = np.where(scores < 0, scores * penalty, scores / penalty)


def bias_arrays(bias: Mapping[int, float], vocab_size: int) -> tuple[Ids, Floats]:
    """Ids and what is added to them. Raises E_SAMPLING for an id that the vocabulary does not have."""
    check_tokens("logit_bias", bias, vocab_size)
    return np.fromiter(bias, dtype=np.int64), np.fromiter(bias.values(), dtype=np.float32)


def check_tokens(option: str, tokens: Iterable[int], vocab_size: int) -> None:
    """Raise E_SAMPLING where an option names a token that the vocabulary does not have."""
    beyond = [token for token in tokens if token >= vocab_size]
    if beyond:
        raise SlmError(
            "E_SAMPLING",
            f"{option} cita o token {beyond[0]}, mas o vocabulário vai de 0 a {vocab_size - 1}.",
            where=option,
            hint="Veja os ids de um texto com:  ptbr-slm tokenizer inspect TEXTO --tokenizer PASTA",
        )
