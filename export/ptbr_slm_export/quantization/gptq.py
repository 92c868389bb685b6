"""GPTQ (Frantar et al., 2022, arXiv:2210.17323): the error of a column is made good by the columns after it.

Minimises |X W^T - X W'^T|^2 over a text's activations X instead of |W - W'|^2: what counts is what the matrix
does. Blocks are quantised from left to right; within one, each column's error, divided by the diagonal of the
Cholesky factor of the inverse Gram matrix, is taken out of the columns not yet rounded.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ptbr_slm_export.quantization.blocks import LARGEST, Blocks, Floats, inverse, too_far
from ptbr_slm_export.quantization.rounding import search

DAMPING = 0.05
"""Part of the mean of the Gram matrix's diagonal that is added to it. The paper's 0.01 moves weights further
and cost twice as many bits per byte (docs/decisions/0048-int4-gptq.md)."""
Ranges = Callable[[Floats, Floats | None], Blocks]
"""Blocks (n, block) and what an error of each weight costs -> the blocks quantised."""
STRONG_DAMPING = 0.5
"""For rows that would otherwise leave their weights too far behind."""


def gptq(weights: Floats, bits: int, block: int, gram: Floats, ranges: Ranges | None = None) -> Blocks:
    """weights (rows, columns) to blocks (rows * columns / block, block), row after row.

    gram: (columns, columns), the sum of x x^T over the inputs x of a text; any scale. ranges: what finds the
    scales and zeros of blocks, `search` unless given. No row is worse by that
    measure than `search` weighed by the diagonal: where GPTQ loses, as it may where columns are independent,
    the row is the search's. Nor is any block further from its weights than `FARTHEST`, as what the text does
    not use would be lost: such a row is done again with more damping, and else by `search` alone.
    """
    unit = np.abs(weights).max() or np.float32(1)
    weights = weights / unit  # squares of the smallest and of the largest float32 are none
    find = ranges or (lambda blocks, cost: search(blocks, bits, cost))
    per_row = weights.shape[1] // block
    cost = np.broadcast_to(np.diag(gram).astype(np.float32), weights.shape).reshape(-1, block)
    best = find(weights.reshape(-1, block), cost)
    ours = _compensated(weights, bits, block, _factor(gram, DAMPING), find)
    better = output_error(weights, ours, gram) < output_error(weights, best, gram)  # (rows,)
    best = best.where(np.repeat(~better, per_row), ours)
    far = _far(weights, best, bits)
    if far.any():
        again = _compensated(weights[far], bits, block, _factor(gram, STRONG_DAMPING), find)
        best = best.replaced(np.repeat(far, per_row), again)
        far = _far(weights, best, bits)
    if far.any():
        best = best.replaced(np.repeat(far, per_row), find(weights[far].reshape(-1, block), None))
    return Blocks(best.codes, best.scales * unit, best.zeros)


def _far(weights: Floats, found: Blocks, bits: int) -> npt.NDArray[np.bool_]:
    """Rows (rows,) with a block that lies too far from its weights."""
    far = too_far(weights.reshape(found.codes.shape), found, bits).reshape(len(weights), -1)
    rows: npt.NDArray[np.bool_] = np.logical_or.reduce(far, axis=1)
    return rows


def _compensated(weights: Floats, bits: int, block: int, factor: Floats, find: Ranges) -> Blocks:
    """Block after block of columns, each with the errors of those before it taken out."""
    work = np.ascontiguousarray(weights.T)  # (columns, rows): a column of the matrix is one vector
    parts: list[Blocks] = []
    for start in range(0, len(work), block):
        part = slice(start, start + block)
        errors, found = _one_block(work[part], factor[part, part], bits, find)
        work[start + block :] -= factor[part, start + block :].T @ errors
        parts.append(found)
    return Blocks(
        np.stack([found.codes for found in parts], axis=1).reshape(-1, block),
        np.stack([found.scales for found in parts], axis=1).reshape(-1),
        np.stack([found.zeros for found in parts], axis=1).reshape(-1),
    )


def output_error(weights: Floats, found: Blocks, gram: Floats) -> Floats:
    """Squared error of each output over the text of `gram`, (rows,)."""
    difference = weights - found.values().reshape(weights.shape)
    error: Floats = np.einsum("ij,ij->i", difference @ gram, difference)
    return error


def _one_block(work: Floats, factor: Floats, bits: int, find: Ranges) -> tuple[Floats, Blocks]:
    """Errors (block, rows) and codes of one block of columns, work (block, rows), which is used up."""
    diagonal = np.diag(factor)
    cost = np.broadcast_to((1 / diagonal**2).astype(np.float32), work.T.shape)
    ranges = find(work.T, cost)
    scale, zero = ranges.scales, ranges.zeros.astype(np.float32)
    inverted = inverse(scale)
    codes = np.empty(work.shape, dtype=np.uint8)
    errors = np.empty_like(work)
    for index, column in enumerate(work):
        code = np.clip(np.rint(column * inverted + zero), 0, LARGEST[bits])
        codes[index] = code
        errors[index] = (column - scale * (code - zero)) / diagonal[index]
        work[index + 1 :] -= factor[index, index + 1 :, None] * errors[index]
    return errors, Blocks(np.ascontiguousarray(codes.T), scale, ranges.zeros)


def _factor(gram: Floats, damping: float) -> Floats:
    """The upper Cholesky factor of the damped Gram matrix's inverse, (columns, columns)."""
    damped: npt.NDArray[np.float64] = gram.astype(np.float64)
    mean = float(np.diag(damped).mean())
    damped[np.diag_indices_from(damped)] += damping * mean if mean > 0 else 1.0
    return np.ascontiguousarray(np.linalg.cholesky(np.linalg.inv(damped)).T).astype(np.float32)
