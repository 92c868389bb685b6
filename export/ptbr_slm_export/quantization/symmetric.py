"""int4 without zeros, as Q4_0: what the fused int4 kernel of CUDA takes.

That kernel is fpA_intB_gemm (onnxruntime/contrib_ops/cuda/quantization/matmul_nbits.cc).

weight ~ scale * (code - 8): the largest weight of a block gets the code 0, so its scale may be negative.
"""

from __future__ import annotations

import numpy as np

from ptbr_slm_export.quantization.blocks import LARGEST, Blocks, Floats, inverse

MIDDLE = 8
"""The code of a weight of 0."""
_SHRINKS = (0.84, 0.88, 0.92, 0.96, 1.0, 1.04)
"""Parts of a block's peak that the code 0 may stand for; what lies beyond is clipped."""


def symmetric(blocks: Floats, importance: Floats | None = None, *, search: bool = True) -> Blocks:
    """Blocks (n, block) of int4, each with the best of several ranges, its scale fitted by least squares.

    importance: (n, block), what a squared error of each weight costs; None counts all alike. search: False
    takes the block's own range, unfitted.
    """
    weights = np.ascontiguousarray(blocks.T)  # (block, n): sums over a block run along whole vectors
    cost = None if importance is None else np.ascontiguousarray(importance.T)
    peak = np.take_along_axis(weights, np.abs(weights).argmax(axis=0)[None], axis=0)[0]
    step = peak / np.float32(-MIDDLE)
    if not search:
        return _encode(weights, inverse(step), step)
    best = np.zeros((3, weights.shape[1]), dtype=np.float32)  # gain, inverse step, scale
    best[0] = -1
    for shrink in _SHRINKS:
        inverted = inverse(step * np.float32(shrink))
        shifted = _shifted(weights, inverted)
        heavy = shifted if cost is None else shifted * cost
        product = np.einsum("ij,ij->j", weights, heavy)
        scale = product * inverse(np.einsum("ij,ij->j", shifted, heavy))
        best = np.where(product * scale > best[0], np.stack([product * scale, inverted, scale]), best)
    return _encode(weights, best[1], best[2])


def _shifted(weights: Floats, inverted: Floats) -> Floats:
    """code - 8 of weights (block, n)."""
    shifted: Floats = np.clip(np.rint(weights * inverted), -MIDDLE, LARGEST[4] - MIDDLE)
    return shifted


def _encode(weights: Floats, inverted: Floats, scale: Floats) -> Blocks:
    codes = _shifted(weights, inverted) + MIDDLE
    zeros = np.full(len(scale), MIDDLE, dtype=np.uint8)
    return Blocks(np.ascontiguousarray(codes.T).astype(np.uint8), scale, zeros)
