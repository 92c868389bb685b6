"""HQQ: half-quadratic quantisation (Badri and Shaji, 2023, mobiusml.github.io/hqq_blog), no calibration.

It minimises sum |w - w'|^0.7 in place of squares, so that few large weights count less: shrink the error to
what is sparse in it, fit to the rest, repeat. The paper fits a real zero; MatMulNBits packs whole ones, so
the scale is fitted as well and the zero rounded.
"""

from __future__ import annotations

import numpy as np

from ptbr_slm_export.quantization.blocks import LARGEST, Blocks, Floats, inverse
from ptbr_slm_export.quantization.search import rtn

NORM = 0.7
"""The p of the measure, as in the paper."""
ITERATIONS = 20
_BETA, _KAPPA = 10.0, 1.01
"""Weight of the quadratic part, and its growth a step, as in the reference code."""


def hqq(blocks: Floats, bits: int) -> Blocks:
    """Blocks (n, block) with the smallest sum of |error|^0.7 seen on the way, which starts at `rtn`."""
    best = rtn(blocks, bits)
    lowest = _measure(blocks - best.values())
    scale, zero = best.scales.copy(), best.zeros.astype(np.float32)
    beta = np.float32(_BETA)
    unit = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)  # (n, 1)
    for _ in range(ITERATIONS):
        codes = _codes(blocks, scale, zero, bits)
        error = blocks - scale[:, None] * (codes - zero[:, None])
        fitted = blocks - _shrink(error / unit, beta) * unit  # without what is sparse in the error
        if bits == 4:
            moved = (codes - fitted * inverse(scale)[:, None]).mean(axis=1)
            zero = np.clip(np.rint(moved), 0, LARGEST[bits])
        shifted = codes - zero[:, None]
        square = np.einsum("ij,ij->i", shifted, shifted)
        scale = (np.einsum("ij,ij->i", fitted, shifted) * inverse(square)).astype(np.float32)
        found = Blocks(_codes(blocks, scale, zero, bits).astype(np.uint8), scale, zero.astype(np.uint8))
        measure = _measure(blocks - found.values())
        better = measure < lowest
        lowest = np.minimum(measure, lowest)
        best = found.where(better, best)
        beta *= np.float32(_KAPPA)
    return best


def _codes(blocks: Floats, scale: Floats, zero: Floats, bits: int) -> Floats:
    codes: Floats = np.clip(np.rint(blocks * inverse(scale)[:, None] + zero[:, None]), 0, LARGEST[bits])
    return codes


def _measure(error: Floats) -> Floats:
    """sum |error|^p of each block, (n,)."""
    result: Floats = (np.abs(error) ** np.float32(NORM)).sum(axis=1)
    return result


def _shrink(error: Floats, beta: np.float32) -> Floats:
    """The generalised soft threshold of l_p: small errors to 0, large ones nearly kept."""
    size = np.abs(error)
    small = np.finfo(np.float32).tiny
    threshold = (np.float32(NORM) / beta) * np.maximum(size, small) ** np.float32(NORM - 1)
    result: Floats = np.sign(error) * np.maximum(size - threshold, 0)
    return result
