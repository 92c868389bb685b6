"""Ranges: `rtn` takes the one that a block spans; `search` tries several and fits the scale.

All work on (block, n): the sums over a block then run along whole vectors. Relative error on Gaussian
weights: 0.0859 for the rule of ORT's default and of Q4_0 in blocks of 32; for `search` 0.0778 in blocks of
32, 0.0873 in 64, 0.0952 in 128 (docs/decisions/0014-blocks-128-64.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptbr_slm_export.quantization.blocks import LARGEST, ZERO, Blocks, Floats, inverse


@dataclass(frozen=True, slots=True)
class Effort:
    """Which ranges are tried."""

    shrinks: tuple[float, ...]
    """Parts of a block's range that the codes may span; the rest is clipped. Always with 1."""
    offsets: tuple[int, ...] = (0,)
    """Added to the zero that the range asks for."""


QUICK = Effort((0.76, 0.8, 0.84, 0.88, 0.92, 0.96, 1.0))
THOROUGH = Effort((0.7, 0.74, 0.78, 0.82, 0.86, 0.9, 0.94, 0.98, 1.0, 1.04), (0, -1, 1))
"""Like llama.cpp's k-quants and ORT's k_quant, which try 20 ranges."""


def rtn(blocks: Floats, bits: int) -> Blocks:
    """Round to nearest over the range of each block (n, block): the plain default of most tools."""
    weights = np.ascontiguousarray(blocks.T)
    step, zero = _range(weights, bits)
    return _encode(weights, inverse(step), step, zero, bits)


def search(blocks: Floats, bits: int, importance: Floats | None = None, effort: Effort = QUICK) -> Blocks:
    """The best of several ranges for each block (n, block), its scale fitted by least squares.

    importance: (n, block), what a squared error of each weight costs; None counts all alike. Never worse than
    `rtn` by that measure, as the whole range is one of those tried.
    """
    weights = np.array(blocks.T, order="C")  # (block, n), a copy
    unit = np.abs(weights).max(axis=0)
    weights *= inverse(unit)  # squares of the smallest and of the largest float32 are none
    cost = None if importance is None else np.ascontiguousarray(importance.T)
    step, zero = _range(weights, bits)
    best = np.zeros((4, weights.shape[1]), dtype=np.float32)  # gain, inverse step, zero, scale
    best[0], best[2] = -1, zero
    for shrink in effort.shrinks if bits == 4 else (1.0,):  # 256 codes: clipping has nothing to gain
        inverted = inverse(step * np.float32(shrink))
        for offset in effort.offsets if bits == 4 else (0,):
            moved = np.clip(zero + np.float32(offset), 0, LARGEST[bits])
            gain, scale = _fit(weights, cost, inverted, moved, bits)
            best = np.where(gain > best[0], np.stack([gain, inverted, moved, scale]), best)
    _, inverted, zero, scale = best
    found = _encode(weights, inverted, scale, zero, bits)
    return Blocks(found.codes, scale * unit, found.zeros)


def _range(weights: Floats, bits: int) -> tuple[Floats, Floats]:
    """Step and zero (n,) of the range that each block of (block, n) spans, zero included.

    int8: the largest weight has the code -128, so its step may be negative.
    """
    if bits == 8:
        peak = np.take_along_axis(weights, np.abs(weights).argmax(axis=0)[None], axis=0)[0]
        return peak / np.float32(-ZERO), np.full(peak.shape, ZERO, dtype=np.float32)
    low = np.minimum(weights.min(axis=0), 0)
    step = (np.maximum(weights.max(axis=0), 0) - low) / np.float32(LARGEST[bits])
    return step, np.clip(np.rint(-low * inverse(step)), 0, LARGEST[bits])


def _fit(
    weights: Floats, cost: Floats | None, inverted: Floats, zero: Floats, bits: int
) -> tuple[Floats, Floats]:
    """What the squared error falls by, and the scale that brings it there, (n,) both."""
    shifted = np.clip(np.rint(weights * inverted), -zero, LARGEST[bits] - zero)  # code - zero
    heavy = shifted if cost is None else shifted * cost
    product = np.einsum("ij,ij->j", weights, heavy)
    scale = product * inverse(np.einsum("ij,ij->j", shifted, heavy))
    return product * scale, scale


def _encode(weights: Floats, inverted: Floats, scale: Floats, zero: Floats, bits: int) -> Blocks:
    """weights (block, n) to codes (n, block); inverse step, scale and zero are (n,)."""
    codes = np.clip(np.rint(weights * inverted), -zero, LARGEST[bits] - zero) + zero
    return Blocks(np.ascontiguousarray(codes.T).astype(np.uint8), scale, zero.astype(np.uint8))
