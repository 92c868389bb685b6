"""Block quantisation in the layout of MatMulNBits: the weights of a row share a scale, block by block.

weight ~ scale * (code - zero). int8: zero is always 128; int4: one of 0 to 15 a block. How codes, scales and
zeros are found is the business of the methods beside this file; here is what they have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

ZERO = 128
"""Of int8: codes 0 to 255 stand for -128 to 127."""
LARGEST = {8: 255, 4: 15}
"""The last code."""

FARTHEST = {8: 0.029, 4: 0.24}
"""Largest relative error of a block that a method may choose for the sake of something else: below what
`verification` takes for another weight. Plain rounding stays below 0.026 and 0.22, whatever the weights."""


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A matrix (rows, columns) in blocks along its rows."""

    bits: int
    codes: Bytes
    """(rows, blocks, block * bits / 8); of int4 the first of two codes is the low half."""
    scales: Floats
    """(rows, blocks)."""
    zeros: Bytes | None
    """int4: (rows, ceil(blocks / 2)), packed like the codes; int8: None, which means 128."""

    @property
    def block(self) -> int:
        """Weights that share a scale."""
        return int(self.codes.shape[2]) * 8 // self.bits

    @property
    def rows(self) -> int:
        """Outputs of the product."""
        return int(self.codes.shape[0])

    @property
    def columns(self) -> int:
        """Inputs of the product."""
        return int(self.codes.shape[1]) * self.block


@dataclass(frozen=True, slots=True)
class Blocks:
    """Quantised blocks, a code a byte: what a method finds."""

    codes: Bytes
    """(n, block)."""
    scales: Floats
    """(n,)."""
    zeros: Bytes
    """(n,)."""

    def values(self) -> Floats:
        """What they stand for, (n, block)."""
        shifted = self.codes.astype(np.float32) - self.zeros[:, None].astype(np.float32)
        return self.scales[:, None] * shifted

    def part(self, places: slice) -> Blocks:
        """These of the blocks."""
        return Blocks(self.codes[places], self.scales[places], self.zeros[places])

    def where(self, mask: npt.NDArray[np.bool_], other: Blocks) -> Blocks:
        """These blocks where `mask` (n,) says so, else the other's."""
        return Blocks(
            np.where(mask[:, None], self.codes, other.codes),
            np.where(mask, self.scales, other.scales),
            np.where(mask, self.zeros, other.zeros),
        )

    def replaced(self, places: npt.NDArray[np.bool_], others: Blocks) -> Blocks:
        """These blocks with `others`, in order, at `places` (n,)."""
        codes, scales, zeros = self.codes.copy(), self.scales.copy(), self.zeros.copy()
        codes[places], scales[places], zeros[places] = others.codes, others.scales, others.zeros
        return Blocks(codes, scales, zeros)

    def pack(self, rows: int, bits: int, *, symmetric: bool = False) -> QuantizedMatrix:
        """As a matrix of `rows`, block after block of each. symmetric: all zeros are 8, and left out."""
        block = self.codes.shape[1]
        scales = self.scales.reshape(rows, -1)
        if bits == 8:
            return QuantizedMatrix(8, self.codes.reshape(rows, -1, block), scales, None)
        codes = _pack(self.codes).reshape(rows, -1, block // 2)
        return QuantizedMatrix(4, codes, scales, None if symmetric else _pack(self.zeros.reshape(rows, -1)))


def joined(parts: Sequence[Blocks]) -> Blocks:
    """Parts of one matrix, one after the other."""
    return Blocks(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.scales for part in parts]),
        np.concatenate([part.zeros for part in parts]),
    )


def too_far(weights: Floats, found: Blocks, bits: int) -> npt.NDArray[np.bool_]:
    """Whether each block (n,) lies further from its weights (n, block) than `FARTHEST`."""
    error = np.linalg.norm(weights - found.values(), axis=1)
    far: npt.NDArray[np.bool_] = error > FARTHEST[bits] * np.linalg.norm(weights, axis=1)
    return far


def dequantize(matrix: QuantizedMatrix) -> Floats:
    """What the kernels multiply with, (rows, columns)."""
    rows, blocks = matrix.scales.shape
    codes, zeros = matrix.codes.reshape(rows, -1), matrix.zeros
    if matrix.bits == 4:
        codes = _unpack(codes)
    middle = np.float32(1 << matrix.bits - 1)
    shift = middle if zeros is None else _unpack(zeros)[:, :blocks, None].astype(np.float32)
    values = matrix.scales[:, :, None] * (
        codes.reshape(rows, blocks, matrix.block).astype(np.float32) - shift
    )
    return values.reshape(rows, -1).astype(np.float32, copy=False)


def inverse(scale: Floats) -> Floats:
    """1 / scale, and 0 for the scale 0 of a block of zeros."""
    large = np.abs(scale) > np.finfo(np.float32).tiny * 256
    return np.divide(1.0, scale, out=np.zeros_like(scale), where=large)


def _pack(codes: Bytes) -> Bytes:
    """Two 4-bit codes a byte along the last axis, the first in the low half; an odd last one with 0."""
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), dtype=np.uint8)], axis=-1)
    return (codes[..., 0::2] | (codes[..., 1::2] << 4)).astype(np.uint8, copy=False)


def _unpack(packed: Bytes) -> Bytes:
    """The inverse of `_pack`."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
