"""Which tokens may be drawn, and with what weight: temperature, top-k, top-p, min-p, in this order.

transformers' processors in its order, property-tested against them (tests/runtime/test_sampling.py).
"""

from __future__ import annotations

import numpy as np

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sampling.selection import Flags, Floats, Ids, reach, top_ids

_FLOOR = 1e-3
"""Weight, relative to the largest, below which tokens are set aside at first: of 32,000 few remain."""


def distribution(logits: Floats, params: SamplingParams) -> tuple[Ids | None, Floats]:
    """Ids that may be drawn, ascending (None: all), and their weights relative to the largest, which is 1.

    A weight of 0 is left out as well. logits: (V,), overwritten. temperature must be above 0. Raises
    E_MODEL_INVALID for NaN or infinity.
    """
    peak = logits.max()
    check_finite(peak)
    logits -= peak
    if params.temperature != 1.0:
        logits /= params.temperature
    ids: Ids | None = None
    if 0 < params.top_k < len(logits):
        ids = top_ids(logits, params.top_k)
        logits = logits[ids]
    weights: Floats = np.exp(logits)
    if params.top_p < 1.0:
        ids, weights = _top_p(ids, weights, params.top_p)
    if params.min_p > 0.0:
        ids, weights = _keep(ids, weights, weights >= params.min_p)
    return ids, weights


def _top_p(ids: Ids | None, weights: Floats, p: float) -> tuple[Ids | None, Floats]:
    wanted = p * float(weights.sum(dtype=np.float64))
    near = weights > _FLOOR
    if 8 * np.count_nonzero(near) < len(weights):
        few, close = _keep(ids, weights, near)
        if float(close.sum(dtype=np.float64)) >= wanted:
            ids, weights = few, close
    return _keep(ids, weights, reach(weights, wanted))


def _keep(ids: Ids | None, weights: Floats, kept: Flags) -> tuple[Ids | None, Floats]:
    """Only those that are `kept` (n,): left out where they are few, else weighed 0, which is faster."""
    if 8 * np.count_nonzero(kept) > len(weights):
        return ids, weights * kept
    at = np.flatnonzero(kept)
    return at if ids is None else ids[at], weights[at]


def check_finite(score: np.float32) -> None:
    """Raise E_MODEL_INVALID where the largest logit is no number."""
    if not np.isfinite(score):
        raise SlmError(
            "E_MODEL_INVALID",
            "o modelo produziu valores que não são números (NaN ou infinito): os pesos estão estragados.",
            where="logits",
            hint="Confira o modelo com:  ptbr-slm verify EXPORT --against MODELO",
        )
