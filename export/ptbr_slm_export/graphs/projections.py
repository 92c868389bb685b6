"""How a matrix is stored and multiplied: one class a precision, all with the same three methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ptbr_slm_export.graphs.nodes import MICROSOFT, GraphWriter
from ptbr_slm_export.graphs.weights import Floats, LlamaWeights
from ptbr_slm_export.quantization.blocks import BLOCKS, QuantizedMatrix, quantize


class Projections(Protocol):
    """Writes the embedding, every dense product and the head."""

    def embed(self, writer: GraphWriter, ids: ir.Value) -> ir.Value:
        """ids (B, S) -> (B, S, C)."""

    def dense(
        self, writer: GraphWriter, x: ir.Value, name: str, rows: int, columns: int, read: Callable[[], Floats]
    ) -> ir.Value:
        """x (..., columns) -> (..., rows), times the transposed matrix (rows, columns) that `read` gives."""

    def head(self, writer: GraphWriter, x: ir.Value) -> ir.Value:
        """x (B, K, C) -> logits (B, K, V)."""


class Float32Projections:
    """Plain fp32: MatMul over matrices transposed when written, and one embedding matrix where it is tied."""

    def __init__(self, weights: LlamaWeights) -> None:
        self.weights = weights

    def embed(self, writer: GraphWriter, ids: ir.Value) -> ir.Value:
        """ids (B, S) -> (B, S, C)."""
        config = self.weights.config
        shape = (config.vocab_size, config.hidden_size)
        self._table = writer.weight("embedding", shape, self.weights.embedding)
        return writer.node("Gather", [self._table, ids], "embed")

    def dense(
        self, writer: GraphWriter, x: ir.Value, name: str, rows: int, columns: int, read: Callable[[], Floats]
    ) -> ir.Value:
        """MatMul: x (..., columns) -> (..., rows)."""
        weight = writer.weight(name + ".weight", (columns, rows), lambda: np.ascontiguousarray(read().T))
        return writer.node("MatMul", [x, weight], name)

    def head(self, writer: GraphWriter, x: ir.Value) -> ir.Value:
        """x (B, K, C) -> (B, K, V)."""
        config = self.weights.config
        if not config.tie_embeddings:
            return self.dense(writer, x, "head", config.vocab_size, config.hidden_size, self.weights.head)
        # transB reads the embedding as it lies: 25M weights are stored, and mapped, once. Measured at 85m
        # against Gemm, a transposed copy, and a Gather along axis 1: same time and memory, fewest nodes.
        return writer.node(
            "FusedMatMul", [x, self._table], "head", domain=MICROSOFT, attributes={"transB": 1}
        )


_BLOCK = {8: 128, 4: 64}
"""Weights that share a scale. Larger blocks are faster on AVX-512: a decode step of the 85m at 300 tokens,
one thread, median, takes 6.7 ms in int8 with blocks of 32 and 4.9 with 128; in int4, its head always int8 in
128, 4.9 ms with 32 and 4.6 with 64. Bits per byte stay within 0.006 % of blocks of 32. int4 stops at 64, as
there its weights err about as much as Q4_0's."""


class QuantizedProjections:
    """int8 or int4 weights in blocks, multiplied by MatMulNBits with int8 activations.

    The embedding and the head are int8 whatever `bits` says: they are the rows that int4 hurts most.
    """

    def __init__(self, weights: LlamaWeights, bits: int) -> None:
        self.weights, self.bits = weights, bits

    def _quantize(self, matrix: Floats, bits: int) -> QuantizedMatrix:
        columns = matrix.shape[1]
        block = next(size for size in BLOCKS if size <= _BLOCK[bits] and columns % size == 0)
        return quantize(matrix, bits, block)

    def embed(self, writer: GraphWriter, ids: ir.Value) -> ir.Value:
        """ids (B, S) -> (B, S, C), dequantised row by row."""
        self._table = self._quantize(self.weights.embedding(), 8)
        self._codes = writer.constant("embedding.codes", self._table.codes)
        # The codes keep MatMulNBits' three dimensions, so that a tied head reads the very same initializer;
        # GatherBlockQuantized takes the block as its last axis, and a free Reshape joins the blocks.
        scales = writer.constant("embedding.scales", self._table.scales[:, :, None])
        blocks = writer.node(
            "GatherBlockQuantized",
            [self._codes, ids, scales],
            "embed.blocks",
            domain=MICROSOFT,
            attributes={"bits": 8, "block_size": self._table.block, "gather_axis": 0, "quantize_axis": 2},
        )  # (B, S, C / 32, 32)
        shape = writer.constant("embed.shape", np.array([0, 0, self._table.columns], dtype=np.int64))
        return writer.node("Reshape", [blocks, shape], "embed")

    def dense(
        self, writer: GraphWriter, x: ir.Value, name: str, rows: int, columns: int, read: Callable[[], Floats]
    ) -> ir.Value:
        """MatMulNBits: x (..., columns) -> (..., rows)."""
        matrix = self._quantize(read(), self.bits)
        assert (matrix.rows, matrix.columns) == (rows, columns)
        return self._product(writer, x, name, matrix, writer.constant(name + ".codes", matrix.codes))

    def head(self, writer: GraphWriter, x: ir.Value) -> ir.Value:
        """x (B, K, C) -> (B, K, V)."""
        if self.weights.config.tie_embeddings:
            return self._product(writer, x, "head", self._table, self._codes)
        matrix = self._quantize(self.weights.head(), 8)
        return self._product(writer, x, "head", matrix, writer.constant("head.codes", matrix.codes))

    def _product(
        self, writer: GraphWriter, x: ir.Value, name: str, matrix: QuantizedMatrix, codes: ir.Value
    ) -> ir.Value:
        inputs = [x, codes, writer.constant(name + ".scales", matrix.scales.reshape(-1))]
        if matrix.zeros is not None:
            inputs.append(writer.constant(name + ".zeros", matrix.zeros.reshape(-1)))
        # accuracy_level 4 quantises the activations to int8: 6 times faster on a CPU than the default, which
        # dequantises the weights and is slower than fp32 (shared reference, onnx C).
        return writer.node(
            "MatMulNBits",
            inputs,
            name,
            domain=MICROSOFT,
            attributes={
                "K": matrix.columns,
                "N": matrix.rows,
                "bits": matrix.bits,
                "block_size": matrix.block,
                "accuracy_level": 4,
            },
        )
