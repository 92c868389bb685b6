"""Block quantisation in the layout of MatMulNBits: the weights of a row share a scale, block by block.

weight ~ scale * (code - zero). int8: zero 128, scale = peak / -128. int4: scale and zero searched for the
least squared error. Relative error on Gaussian weights: 0.0859 for the rule of ORT's default and of Q4_0 in
blocks of 32; for this search 0.0778 in blocks of 32, 0.0873 in 64, 0.0952 in 128 (docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

BLOCKS = (128, 64, 32)
"""Weights that share a scale: what MatMulNBits takes, largest first."""
_ROWS_AT_ONCE = 1 << 16
"""Weights searched at once: 256 KiB of float32 stays in the second-level cache."""
_SHRINK = np.linspace(0.76, 1.0, 7)
"""Parts of a block's range that the 16 codes of int4 may span; the rest is clipped."""


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


def quantize(matrix: Floats, bits: int, block: int) -> QuantizedMatrix:
    """Quantise a (rows, columns) matrix to 8 or 4 bits; columns a multiple of `block`."""
    rows, columns = matrix.shape
    blocks = columns // block
    flat = matrix.reshape(-1, block)
    codes = np.empty(flat.shape, dtype=np.uint8)
    scales = np.empty(len(flat), dtype=np.float32)
    zeros = np.empty(len(flat), dtype=np.uint8)
    step = _ROWS_AT_ONCE // block
    for start in range(0, len(flat), step):
        part = slice(start, start + step)
        codes[part], scales[part], zeros[part] = (_int8 if bits == 8 else _int4)(flat[part])
    if bits == 8:
        return QuantizedMatrix(8, codes.reshape(rows, blocks, block), scales.reshape(rows, blocks), None)
    return QuantizedMatrix(
        4,
        _pack(codes).reshape(rows, blocks, block // 2),
        scales.reshape(rows, blocks),
        _pack(zeros.reshape(rows, blocks)),
    )


def dequantize(matrix: QuantizedMatrix) -> Floats:
    """What the kernels multiply with, (rows, columns)."""
    rows, blocks = matrix.scales.shape
    codes, zeros = matrix.codes.reshape(rows, -1), matrix.zeros
    if matrix.bits == 4:
        codes = _unpack(codes)
    shift = 128.0 if zeros is None else _unpack(zeros)[:, :blocks, None].astype(np.float32)
    values = matrix.scales[:, :, None] * (
        codes.reshape(rows, blocks, matrix.block).astype(np.float32) - shift
    )
    return values.reshape(rows, -1).astype(np.float32, copy=False)


def _int8(blocks: Floats) -> tuple[Bytes, Floats, Bytes]:
    """codes (n, block), scales (n,), zeros (n,) of n blocks: the largest weight has the code -128."""
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)  # (n, 1), signed
    scale = peak / -128.0
    codes = np.clip(np.rint(blocks * _inverse(scale)), -128, 127) + 128
    return codes.astype(np.uint8), scale[:, 0], np.full(len(blocks), 128, dtype=np.uint8)


def _int4(blocks: Floats) -> tuple[Bytes, Floats, Bytes]:
    """codes (n, block), scales (n,), zeros (n,): the best of seven ranges, scales fitted by least squares."""
    weights = np.ascontiguousarray(blocks.T)  # (block, n): sums over a block run along whole vectors
    low = np.minimum(weights.min(axis=0), 0)
    span = np.maximum(weights.max(axis=0), 0) - low
    best = np.zeros((4, weights.shape[1]), dtype=np.float32)  # gain, inverse, zero, scale
    best[0], best[2] = -1, 8
    for shrink in _SHRINK:
        inverse = _inverse(span * np.float32(shrink / 15))
        zero = np.clip(np.rint(-low * np.float32(shrink) * inverse), 0, 15)
        shifted = np.clip(np.rint(weights * inverse), -zero, 15 - zero)  # code - zero
        product = np.einsum("ij,ij->j", weights, shifted)
        square = np.maximum(np.einsum("ij,ij->j", shifted, shifted), np.float32(1))
        gain = product * product / square  # what the squared error falls by
        best = np.where(gain > best[0], np.stack([gain, inverse, zero, product / square]), best)
    _, inverse, zero, scale = best
    codes = np.clip(np.rint(weights * inverse), -zero, 15 - zero) + zero
    return codes.T.astype(np.uint8), scale, zero.astype(np.uint8)


def _inverse(scale: Floats) -> Floats:
    """1 / scale, and 0 for the scale 0 of a block of zeros."""
    return np.divide(
        1.0, scale, out=np.zeros_like(scale), where=np.abs(scale) > np.finfo(np.float32).tiny * 256
    )


def _pack(codes: Bytes) -> Bytes:
    """Two 4-bit codes a byte along the last axis, the first in the low half; an odd last one with 0."""
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), dtype=np.uint8)], axis=-1)
    return (codes[..., 0::2] | (codes[..., 1::2] << 4)).astype(np.uint8, copy=False)


def _unpack(packed: Bytes) -> Bytes:
    """The inverse of `_pack`."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
