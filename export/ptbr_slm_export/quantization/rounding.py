"""From blocks of weights to scales, zeros and codes, block by block.

`rtn` takes the range that a block spans; `search` tries several and fits the scale; `symmetric` does so for
int4 without zeros; `hqq` counts large weights less. They work on (block, n): the sums over a block then run
along whole vectors. Relative error on Gaussian
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
MIDDLE = 8
"""The code of a weight of 0 in int4 without zeros."""
_SYMMETRIC_SHRINKS = (0.84, 0.88, 0.92, 0.96, 1.0, 1.04)
"""Parts of a block's peak that the code 0 may stand for; what lies beyond is clipped."""
NORM = 0.7
"""The p of HQQ's measure, as in the paper."""
ITERATIONS = 20
_BETA, _KAPPA = 10.0, 1.01
"""Weight of the quadratic part, and its growth a step, as in the reference code."""


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


def symmetric(blocks: Floats, importance: Floats | None = None, *, search: bool = True) -> Blocks:
    """int4 without zeros (n, block), as Q4_0: what CUDA's fused int4 kernel takes.

    weight ~ scale * (code - 8): the largest weight of a block gets the code 0, so its scale may be negative.
    Each block gets the best of several ranges, its scale fitted by least squares. The kernel is fpA_intB_gemm
    (onnxruntime/contrib_ops/cuda/quantization/matmul_nbits.cc).

    importance: (n, block), what a squared error of each weight costs; None counts all alike. search: False
    takes the block's own range, unfitted.
    """
    weights = np.ascontiguousarray(blocks.T)  # (block, n): sums over a block run along whole vectors
    cost = None if importance is None else np.ascontiguousarray(importance.T)
    peak = np.take_along_axis(weights, np.abs(weights).argmax(axis=0)[None], axis=0)[0]
    step = peak / np.float32(-MIDDLE)
    if not search:
        return _encode_symmetric(weights, inverse(step), step)
    best = np.zeros((3, weights.shape[1]), dtype=np.float32)  # gain, inverse step, scale
    best[0] = -1
    for shrink in _SYMMETRIC_SHRINKS:
        inverted = inverse(step * np.float32(shrink))
        shifted = _shifted(weights, inverted)
        heavy = shifted if cost is None else shifted * cost
        product = np.einsum("ij,ij->j", weights, heavy)
        scale = product * inverse(np.einsum("ij,ij->j", shifted, heavy))
        best = np.where(product * scale > best[0], np.stack([product * scale, inverted, scale]), best)
    return _encode_symmetric(weights, best[1], best[2])


def hqq(blocks: Floats, bits: int) -> Blocks:
    """Half-quadratic quantisation of blocks (n, block) (Badri and Shaji, 2023, mobiusml.github.io/hqq_blog).

    It minimises sum |w - w'|^0.7 in place of squares, so that few large weights count less: shrink the error
    to what is sparse in it, fit to the rest, repeat. The paper fits a real zero; MatMulNBits packs whole
    ones, so the scale is fitted as well and the zero rounded. The best seen on the way, which starts at
    `rtn`.
    """
    best = rtn(blocks, bits)
    lowest = _lp_error(blocks - best.values())
    scale, zero = best.scales.copy(), best.zeros.astype(np.float32)
    beta = np.float32(_BETA)
    unit = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)  # (n, 1)
    for _ in range(ITERATIONS):
        codes = _hqq_codes(blocks, scale, zero, bits)
        error = blocks - scale[:, None] * (codes - zero[:, None])
        fitted = blocks - _shrink(error / unit, beta) * unit  # without what is sparse in the error
        if bits == 4:
            moved = (codes - fitted * inverse(scale)[:, None]).mean(axis=1)
            zero = np.clip(np.rint(moved), 0, LARGEST[bits])
        shifted = codes - zero[:, None]
        square = np.einsum("ij,ij->i", shifted, shifted)
        scale = (np.einsum("ij,ij->i", fitted, shifted) * inverse(square)).astype(np.float32)
        found = Blocks(_hqq_codes(blocks, scale, zero, bits).astype(np.uint8), scale, zero.astype(np.uint8))
        measure = _lp_error(blocks - found.values())
        better = measure < lowest
        lowest = np.minimum(measure, lowest)
        best = found.where(better, best)
        beta *= np.float32(_KAPPA)
    return best


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


def _shifted(weights: Floats, inverted: Floats) -> Floats:
    """code - 8 of weights (block, n)."""
    shifted: Floats = np.clip(np.rint(weights * inverted), -MIDDLE, LARGEST[4] - MIDDLE)
    return shifted


def _encode_symmetric(weights: Floats, inverted: Floats, scale: Floats) -> Blocks:
    codes = _shifted(weights, inverted) + MIDDLE
    zeros = np.full(len(scale), MIDDLE, dtype=np.uint8)
    return Blocks(np.ascontiguousarray(codes.T).astype(np.uint8), scale, zeros)


def _hqq_codes(blocks: Floats, scale: Floats, zero: Floats, bits: int) -> Floats:
    codes: Floats = np.clip(np.rint(blocks * inverse(scale)[:, None] + zero[:, None]), 0, LARGEST[bits])
    return codes


def _lp_error(error: Floats) -> Floats:
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
