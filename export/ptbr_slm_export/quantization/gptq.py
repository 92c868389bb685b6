"""GPTQ (Frantar et al., 2022, arXiv:2210.17323), and then coordinate descent from where it ends.

Both minimise |X W^T - X W'^T|^2 over a text's activations X instead of |W - W'|^2: what counts is what the
matrix does. GPTQ quantises block after block; within one, each column's error, divided by the diagonal of the
Cholesky factor of the inverse Gram matrix, is taken out of the columns not yet rounded. The columns with the
strongest inputs come first, and blocks stay the blocks that they are (act-order with static groups in
github.com/IST-DASLab/gptq). What is rounded GPTQ never touches again; the descent then moves every code in
turn to where the error is least with all others as they are (QuantEase: Behdin et al., 2023,
arXiv:2309.01885). None of it costs anything when the model runs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ptbr_slm_export.quantization.blocks import LARGEST, Blocks, Floats, inverse, joined, too_far
from ptbr_slm_export.quantization.rounding import THOROUGH, search

Doubles = npt.NDArray[np.float64]
Order = npt.NDArray[np.int64]

DAMPING = 0.05
"""Part of the mean of the Gram matrix's diagonal that is added to it. The paper's 0.01 moves weights further
and cost twice as many bits per byte (docs/decisions/0048-int4-gptq.md)."""
Ranges = Callable[[Floats, Floats | None], Blocks]
"""Blocks (n, block) and what an error of each weight costs -> the blocks quantised."""
STRONG_DAMPING = 0.5
"""For rows that would otherwise leave their weights too far behind."""
PASSES = 3
"""Of the descent over all columns (docs/decisions/0128-order-and-descent.md)."""
_STRIP = 64
"""Columns of the descent whose moves reach all others in one product."""
_ROWS = 2048
"""Rows of the descent at once: they do not depend on each other, and a head has one for every token."""


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
    find = ranges or (lambda blocks, cost: search(blocks, bits, cost, THOROUGH))
    per_row = weights.shape[1] // block
    cost = np.broadcast_to(np.diag(gram).astype(np.float32), weights.shape).reshape(-1, block)
    best = find(weights.reshape(-1, block), cost)
    ours = _minimised(weights, bits, block, _damped(gram, DAMPING), find)
    better = output_error(weights, ours, gram) < output_error(weights, best, gram)  # (rows,)
    best = best.where(np.repeat(~better, per_row), ours)
    far = _far(weights, best, bits)
    if far.any():
        again = _minimised(weights[far], bits, block, _damped(gram, STRONG_DAMPING), find)
        best = best.replaced(np.repeat(far, per_row), again)
        far = _far(weights, best, bits)
    if far.any():
        best = best.replaced(np.repeat(far, per_row), find(weights[far].reshape(-1, block), None))
    return Blocks(best.codes, best.scales * unit, best.zeros)


def output_error(weights: Floats, found: Blocks, gram: Floats) -> Floats:
    """Squared error of each output over the text of `gram`, (rows,)."""
    difference = weights - found.values().reshape(weights.shape)
    error: Floats = np.einsum("ij,ij->i", difference @ gram, difference)
    return error


def _far(weights: Floats, found: Blocks, bits: int) -> npt.NDArray[np.bool_]:
    """Rows (rows,) with a block that lies too far from its weights."""
    far = too_far(weights.reshape(found.codes.shape), found, bits).reshape(len(weights), -1)
    rows: npt.NDArray[np.bool_] = np.logical_or.reduce(far, axis=1)
    return rows


def _damped(gram: Floats, damping: float) -> Doubles:
    """The Gram matrix with this part of its diagonal's mean added to the diagonal."""
    damped: Doubles = gram.astype(np.float64)
    mean = float(np.diag(damped).mean())
    damped[np.diag_indices_from(damped)] += damping * mean if mean > 0 else 1.0
    return damped


def _minimised(weights: Floats, bits: int, block: int, gram: Doubles, find: Ranges) -> Blocks:
    """GPTQ, then the descent; gram: damped."""
    order = _strongest_first(np.diag(gram), block)
    found = _compensated(weights, order, bits, _factor(gram[np.ix_(order.ravel(), order.ravel())]), find)
    per_row, narrow = len(order), gram.astype(np.float32)
    parts = []
    for start in range(0, len(weights), _ROWS):
        begun = found.part(slice(start * per_row, (start + _ROWS) * per_row))
        parts.append(_descended(weights[start : start + _ROWS], begun, narrow, bits))
    return joined(parts)


def _strongest_first(strength: Doubles, block: int) -> Order:
    """Columns (blocks, block): by their strength (columns,) within each block, the blocks by their sum."""
    blocks = strength.reshape(-1, block)
    columns = np.argsort(-blocks, axis=1, kind="stable") + block * np.arange(len(blocks))[:, None]
    return columns[np.argsort(-blocks.sum(axis=1), kind="stable")]


def _compensated(weights: Floats, order: Order, bits: int, factor: Floats, find: Ranges) -> Blocks:
    """Block after block of columns in this order, each with the errors of those before it taken out.

    factor: of the Gram matrix in this order.
    """
    rows, block = len(weights), order.shape[1]
    work = np.ascontiguousarray(weights.T[order.ravel()])  # (columns, rows): each column is one vector
    codes = np.empty((rows, order.size), dtype=np.uint8)
    scales = np.empty((rows, len(order)), dtype=np.float32)
    zeros = np.empty((rows, len(order)), dtype=np.uint8)
    for number, columns in enumerate(order):
        part = slice(number * block, (number + 1) * block)
        errors, found = _one_block(work[part], factor[part, part], bits, find)
        work[part.stop :] -= factor[part, part.stop :].T @ errors
        place = columns[0] // block
        codes[:, columns], scales[:, place], zeros[:, place] = found.codes, found.scales, found.zeros
    return Blocks(codes.reshape(-1, block), scales.reshape(-1), zeros.reshape(-1))


def _descended(weights: Floats, begun: Blocks, gram: Floats, bits: int) -> Blocks:
    """Codes moved one column after the other to where the error is least; scales and zeros stay.

    With e = w - w' of a row, its error e G e^T is least, all else being as it is, where column j errs by
    e_j - (G e)_j / G_jj.
    """
    rows, block = len(weights), begun.codes.shape[1]
    scales = np.ascontiguousarray(begun.scales.reshape(rows, -1).T)  # (blocks, rows)
    zeros = np.ascontiguousarray(begun.zeros.reshape(rows, -1).T.astype(np.float32))
    codes = np.ascontiguousarray(begun.codes.reshape(rows, -1).T)  # (columns, rows)
    targets = np.ascontiguousarray(weights.T)
    error = targets - begun.values().reshape(rows, -1).T
    inverted, power = inverse(scales), np.diag(gram)
    for _ in range(PASSES):
        pull = gram @ error  # (columns, rows), kept up to date for the columns still to come
        for start in range(0, len(targets), _STRIP):
            strip = slice(start, min(start + _STRIP, len(targets)))
            before = error[strip].copy()
            for column in range(strip.start, strip.stop):
                of = column // block
                wanted = targets[column] - error[column] + pull[column] / power[column]
                code = np.clip(np.rint(wanted * inverted[of] + zeros[of]), 0, LARGEST[bits])
                new = targets[column] - scales[of] * (code - zeros[of])
                later = slice(column + 1, strip.stop)
                pull[later] += gram[later, column, None] * (new - error[column])
                codes[column], error[column] = code, new
            pull[strip.stop :] += gram[strip.stop :, strip] @ (error[strip] - before)
    return Blocks(np.ascontiguousarray(codes.T).reshape(-1, block), begun.scales, begun.zeros)


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


def _factor(gram: Doubles) -> Floats:
    """The upper Cholesky factor of the damped Gram matrix's inverse, (columns, columns)."""
    return np.ascontiguousarray(np.linalg.cholesky(np.linalg.inv(gram)).T).astype(np.float32)
