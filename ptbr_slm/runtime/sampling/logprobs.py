"""Log probabilities of tokens, from the logits as the model gave them.

Before bias, penalties, temperature and constraints, as in vLLM (`raw_logprobs`, its default): they say what
the model thought, and stay comparable between requests that sample differently.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptbr_slm.runtime.sampling.selection import Floats, top_ids
from ptbr_slm.runtime.types import TokenLogprob

_LEAST = -9999.0
"""What stands for a probability of zero, as at OpenAI: JSON has no minus infinity."""


def token_logprob(logits: Floats, token: int, top: int) -> TokenLogprob:
    """Of `token` and of the `top` most probable tokens, from logits (V,), which stay as they are.

    exp in float32 of numbers at most 0, summed in float64: within 1e-6 of a float64 log-softmax.
    """
    peak = logits.max()
    total = float(peak) + float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))

    def of(index: int) -> float:
        return min(0.0, max(_LEAST, float(logits[index]) - total))

    if not top:
        return TokenLogprob(token, of(token))
    ids = top_ids(logits, top) if top < len(logits) else np.arange(len(logits))
    ids = ids[np.argsort(-logits[ids], kind="stable")][:top]
    return TokenLogprob(token, of(token), tuple((index, of(index)) for index in ids.tolist()))


def prompt_logprobs(logits: Floats, following: Sequence[int], top: int) -> list[TokenLogprob]:
    """Of the tokens that follow each position, from logits (T, V): call it chunk by chunk.

    following: (T,) for each row the token that comes next. Works row by row: no second (T, V) array.
    """
    return [token_logprob(scores, token, top) for scores, token in zip(logits, following, strict=True)]
