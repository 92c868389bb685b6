"""GPTQ (Frantar et al., 2022, arXiv:2210.17323): the error of a column is made good by the columns after it.

Minimises |X W^T - X W'^T|^2 over a text's activations X instead of |W - W'|^2: what counts is what the matrix
does. Blocks are quantised from left to right; within one, each column's error, divided by the diagonal of the
Cholesky factor of the inverse Gram matrix, is taken out of the columns not yet rounded.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptbr_slm_export.quantization.blocks import LARGEST, Blocks, Floats, inverse
from ptbr_slm_export.quantization.search import QUICK, Effort, search

DAMPING = 0.01
"""Part of the mean of the Gram matrix's diagonal that is added to it, as in the paper."""


def gptq(weights: Floats, bits: int, block: int, gram: Floats, effort: Effort = QUICK) -> Blocks:
    """weights (rows, columns) to blocks (rows * columns / block, block), row after row.

    gram: (columns, columns), the sum of x x^T over the inputs x of a text; any scale. No row is worse by that
    measure than `search` weighed by the diagonal: where GPTQ loses, as it may where columns are independent,
    the row is the search's.
    """
    columns = weights.shape[1]
    factor = _factor(gram)  # (columns, columns), upper
    work = np.ascontiguousarray(weights.T)  # (columns, rows): a column of the matrix is one vector
    parts: list[Blocks] = []
    for start in range(0, columns, block):
        part = slice(start, start + block)
        errors, found = _one_block(work[part], factor[part, part], bits, effort)
        work[start + block :] -= factor[part, start + block :].T @ errors
        parts.append(found)
    ours = Blocks(
        np.stack([found.codes for found in parts], axis=1).reshape(-1, block),
        np.stack([found.scales for found in parts], axis=1).reshape(-1),
        np.stack([found.zeros for found in parts], axis=1).reshape(-1),
    )
    cost = np.broadcast_to(np.diag(gram).astype(np.float32), weights.shape).reshape(-1, block)
    plain = search(weights.reshape(-1, block), bits, cost, effort)
    worse = output_error(weights, ours, gram) > output_error(weights, plain, gram)  # (rows,)
    worse = np.repeat(worse, columns // block)
    return Blocks(
        np.where(worse[:, None], plain.codes, ours.codes),
        np.where(worse, plain.scales, ours.scales),
        np.where(worse, plain.zeros, ours.zeros),
    )


def output_error(weights: Floats, found: Blocks, gram: Floats) -> Floats:
    """Squared error of each output over the text of `gram`, (rows,)."""
    difference = weights - found.values().reshape(weights.shape)
    error: Floats = np.einsum("ij,ij->i", difference @ gram, difference)
    return error


def _one_block(work: Floats, factor: Floats, bits: int, effort: Effort) -> tuple[Floats, Blocks]:
    """Errors (block, rows) and codes of one block of columns, work (block, rows), which is used up."""
    diagonal = np.diag(factor)
    cost = np.broadcast_to((1 / diagonal**2).astype(np.float32), work.T.shape)
    ranges = search(work.T, bits, cost, effort)
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


def _factor(gram: Floats) -> Floats:
    """The upper Cholesky factor of the damped Gram matrix's inverse, (columns, columns)."""
    damped: npt.NDArray[np.float64] = gram.astype(np.float64)
    mean = float(np.diag(damped).mean())
    damped[np.diag_indices_from(damped)] += DAMPING * mean if mean > 0 else 1.0
    return np.ascontiguousarray(np.linalg.cholesky(np.linalg.inv(damped)).T).astype(np.float32)
