"""Which tokens may be drawn, and with what weight: temperature, top-k, top-p, min-p, in this order; the draw.

The order is that of transformers' processors, against which it is property-tested.

The largest scores are found without sorting all of them: a sort of 32,000 floats takes 0.6 ms and their
running sum 0.3 ms, a tenth each of an 85M model's step on a CPU; the passes here take 0.003 to 0.03 ms
(benchmarks/sampling.py). Casts are passes of their own, for NumPy's reductions cast 5 times slower than
`copyto`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sampling.scratch import scratch

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

_BLOCK = 64
"""Scores whose largest stands for all of them, in a first look at the top k."""

_SHIFT = 18
"""Bits dropped from a float32 to get its bin: 32 bins from one power of two to the next."""

_FEW = 2048
"""Up to here the plain way is the fast one."""

_SORTED = 1024
"""Up to here a sort is cheaper than a dozen passes."""

_FLOOR = 3e-5
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
    weights: Floats = np.exp(logits, out=logits)
    if params.top_p < 1.0:
        ids, weights = _top_p(ids, weights, params.top_p)
    if params.min_p > 0.0:
        ids, weights = _keep(ids, weights, weights >= params.min_p)
    return ids, weights


def _top_p(ids: Ids | None, weights: Floats, p: float) -> tuple[Ids | None, Floats]:
    wanted = p * float(_doubles(weights).sum())
    if len(weights) > _SORTED:
        near = np.greater(weights, _FLOOR, out=scratch(len(weights)).flags[: len(weights)])
        if _are_few(near):
            few, close = _keep(ids, weights, near)
            if float(close.sum(dtype=np.float64)) >= wanted:
                ids, weights = few, close
    if len(weights) > _SORTED:
        return _keep(ids, weights, reach(weights, wanted))
    at = np.sort(_largest(weights, wanted))
    return at if ids is None else ids[at], weights[at]


def _keep(ids: Ids | None, weights: Floats, kept: Flags) -> tuple[Ids | None, Floats]:
    """Only those that are `kept` (n,): left out where they are few, else weighed 0, which is faster."""
    if not _are_few(kept):
        return ids, np.multiply(weights, kept, out=weights)
    at = np.flatnonzero(kept)
    return at if ids is None else ids[at], weights[at]


def _are_few(kept: Flags) -> bool:
    """Whether it pays to gather what is `kept`."""
    return 4 * int(np.count_nonzero(kept)) < len(kept)


def check_finite(score: np.float32) -> None:
    """Raise E_MODEL_INVALID where the largest logit is no number."""
    if not math.isfinite(score):
        raise SlmError(
            "E_MODEL_INVALID",
            "o modelo produziu valores que não são números (NaN ou infinito): os pesos estão estragados.",
            where="logits",
            hint="Confira o modelo com:  ptbr-slm verify EXPORT --against MODELO",
        )


def top_ids(scores: Floats, k: int) -> Ids:
    """Ids of the k largest of scores (V,), and of any that tie with the k-th, ascending. 0 < k < V."""
    blocks = range(0, len(scores), _BLOCK)
    if 4 * k > len(blocks):  # few blocks would tell little
        return np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
    # Each of the k blocks with the largest maxima holds a score at least as large as the k-th maximum. A
    # block is every n-th score: maxima of whole rows at once. Scores beyond the last row are blocks of one.
    rows = scores[: len(scores) // _BLOCK * _BLOCK].reshape(_BLOCK, -1)
    maxima = np.concatenate([rows.max(axis=0), scores[rows.size :]])
    bound = np.partition(maxima, len(maxima) - k)[len(maxima) - k]
    near = np.flatnonzero(scores >= bound)
    close = scores[near]
    kept: Ids = near[close >= np.partition(close, len(close) - k)[len(close) - k]]
    return kept


def reach(weights: Floats, wanted: float) -> Flags:
    """(n,) which of them it takes, the largest first, until they sum to `wanted`. weights: (n,), 0 or more.

    Of equal ones at the border, the first stay.
    """
    # The bits of positive floats are in the order of the floats, so their upper bits number bins from the
    # smallest weights to the largest; only the bin in which the sum is reached is sorted.
    work = scratch(len(weights))
    bins, kept = work.bins[: len(weights)], work.flags[: len(weights)]
    np.copyto(bins, weights.view(np.int32) >> _SHIFT)
    bins -= bins.min()
    mass = np.bincount(bins, weights=_doubles(weights))
    above = np.cumsum(mass[::-1])
    fallen = int(np.searchsorted(above, wanted))  # bins from the top before the one that reaches it
    border = len(mass) - 1 - fallen
    np.greater(bins, border, out=kept)
    edge = np.flatnonzero(bins == border)
    kept[edge[_largest(weights[edge], wanted - (above[fallen - 1] if fallen else 0.0))]] = True
    return kept


def _doubles(weights: Floats) -> npt.NDArray[np.float64]:
    """The same numbers in float64, in scratch memory."""
    wide = scratch(len(weights)).doubles[: len(weights)]
    np.copyto(wide, weights)
    return wide


def _largest(weights: Floats, wanted: float) -> Ids:
    """Indices of the largest of weights (n,), in falling order, until they sum to `wanted`; at least one."""
    order: Ids = np.argsort(-weights, kind="stable")
    sums = np.cumsum(weights[order], dtype=np.float64)
    return order[: int(np.searchsorted(sums, wanted)) + 1]


def draw(weights: Floats, uniform: float) -> int:
    """The index at which the running sum of weights (n,) passes `uniform` (in [0, 1)) of their total.

    Never one whose weight is 0. Above a few thousand weights the sum runs over blocks first.
    """
    if len(weights) <= _FEW:
        return _passing(weights, uniform)
    starts = np.arange(0, len(weights), _BLOCK)
    sums = np.cumsum(np.add.reduceat(_doubles(weights), starts))
    target = uniform * float(sums[-1])
    block = int(sums.searchsorted(target, side="right"))
    low, high = (float(sums[block - 1]) if block else 0.0), float(sums[block])
    start = block * _BLOCK
    return start + _passing(weights[start : start + _BLOCK], (target - low) / (high - low))


def _passing(weights: Floats, share: float) -> int:
    sums = np.cumsum(weights, dtype=np.float64)
    index = int(sums.searchsorted(share * float(sums[-1]), side="right"))
    # A share rounded up to 1 passes nothing: the last weight that counts.
    return index if index < len(weights) else int(np.flatnonzero(weights)[-1])
