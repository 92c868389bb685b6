"""How a matrix is stored and multiplied: one class for floats, one for blocks, both with three methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ptbr_slm_export.graphs.writer import MICROSOFT, GraphWriter, as_float
from ptbr_slm_export.llama import Floats, LlamaWeights
from ptbr_slm_export.quantization.blocks import QuantizedMatrix
from ptbr_slm_export.quantization.quantizer import Quantizer


class Projections(Protocol):
    """Writes the embedding, every dense product and the head."""

    def embed(self, writer: GraphWriter, ids: ir.Value) -> ir.Value:
        """ids (B, S) -> (B, S, C)."""

    def dense(
        self, writer: GraphWriter, x: ir.Value, name: str, rows: int, columns: int, read: Callable[[], Floats]
    ) -> ir.Value:
        """x (..., columns) -> (..., rows), times the transposed matrix (rows, columns) that `read` gives."""

    def head(self, writer: GraphWriter, x: ir.Value) -> ir.Value:
        """x (B, K, C) -> logits (B, K, V), in the type of x."""


def projections_for(
    weights: LlamaWeights, precision: str, quantizer: Quantizer | None, dtype: ir.DataType
) -> Projections:
    """The class for a precision. dtype: of the activations, FLOAT on a CPU, FLOAT16 on a GPU."""
    if quantizer is not None:
        return QuantizedProjections(weights, quantizer, dtype)
    assert precision == ("fp32" if dtype == ir.DataType.FLOAT else "fp16"), (precision, dtype)
    return FloatProjections(weights, dtype)


class FloatProjections:
    """Plain fp32 or fp16: MatMul over matrices transposed when written; a tied embedding is stored once."""

    def __init__(self, weights: LlamaWeights, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        self.weights, self.dtype = weights, dtype

    def embed(self, writer: GraphWriter, ids: ir.Value) -> ir.Value:
        """ids (B, S) -> (B, S, C)."""
        config = self.weights.config
        shape = (config.vocab_size, config.hidden_size)
        self._table = writer.weight("embedding", shape, self.weights.embedding, self.dtype)
        return writer.node("Gather", [self._table, ids], "embed")

    def dense(
        self, writer: GraphWriter, x: ir.Value, name: str, rows: int, columns: int, read: Callable[[], Floats]
    ) -> ir.Value:
        """MatMul: x (..., columns) -> (..., rows)."""
        shape = (columns, rows)
        weight = writer.weight(name + ".weight", shape, lambda: np.ascontiguousarray(read().T), self.dtype)
        return writer.node("MatMul", [x, weight], name)

    def head(self, writer: GraphWriter, x: ir.Value) -> ir.Value:
        """x (B, K, C) -> (B, K, V)."""
        config = self.weights.config
        if not config.tie_embeddings:
            return self.dense(writer, x, "head", config.vocab_size, config.hidden_size, self.weights.head)
        return self.tied_head(writer, x, self._table)

    def tied_head(self, writer: GraphWriter, x: ir.Value, table: ir.Value) -> ir.Value:
        """x (B, K, C) times the embedding's table (V, C) as it lies."""
        # transB reads the embedding as it lies: 25M weights are stored, and mapped, once. Measured at 85m
        # against Gemm, a transposed copy, and a Gather along axis 1: same time and memory, fewest nodes.
        return writer.node("FusedMatMul", [x, table], "head", domain=MICROSOFT, attributes={"transB": 1})


class StandardProjections(FloatProjections):
    """The same in nodes of the ONNX standard only, for TensorRT."""

    def tied_head(self, writer: GraphWriter, x: ir.Value, table: ir.Value) -> ir.Value:
        """x (B, K, C) times the embedding's table (V, C), transposed by a node of its own."""
        turned = writer.node("Transpose", [table], "head.weight", attributes={"perm": [1, 0]})
        return writer.node("MatMul", [x, turned], "head")


class QuantizedProjections:
    """int8 or int4 weights in blocks, multiplied by MatMulNBits; on a CPU with int8 activations.

    The embedding is int8 whatever the recipe says. A head that is int8 too reads the very same codes where
    the model ties them; an int4 one is stored apart.
    """

    def __init__(
        self, weights: LlamaWeights, quantizer: Quantizer, dtype: ir.DataType = ir.DataType.FLOAT
    ) -> None:
        self.weights, self.quantizer, self.dtype = weights, quantizer, dtype

    def embed(self, writer: GraphWriter, ids: ir.Value) -> ir.Value:
        """ids (B, S) -> (B, S, C), dequantised row by row."""
        self._table = self.quantizer.matrix("embedding", self.weights.embedding())
        self._codes = writer.constant("embedding.codes", self._table.codes)
        # The codes keep MatMulNBits' three dimensions, so that a tied head reads the very same initializer;
        # GatherBlockQuantized takes the block as its last axis, and a free Reshape joins the blocks.
        scales = writer.constant("embedding.scales", self._floats(self._table.scales[:, :, None]))
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
        matrix = self.quantizer.matrix(name, read())
        assert (matrix.rows, matrix.columns) == (rows, columns)
        return self._product(writer, x, name, matrix, writer.constant(name + ".codes", matrix.codes))

    def head(self, writer: GraphWriter, x: ir.Value) -> ir.Value:
        """x (B, K, C) -> (B, K, V)."""
        tied = self.weights.config.tie_embeddings
        if tied and self.quantizer.recipe.head_bits == 8:
            return self._product(writer, x, "head", self._table, self._codes)
        matrix = self.quantizer.matrix("head", self.weights.embedding() if tied else self.weights.head())
        return self._product(writer, x, "head", matrix, writer.constant("head.codes", matrix.codes))

    def _product(
        self, writer: GraphWriter, x: ir.Value, name: str, matrix: QuantizedMatrix, codes: ir.Value
    ) -> ir.Value:
        inputs = [x, codes, writer.constant(name + ".scales", self._floats(matrix.scales.reshape(-1)))]
        if matrix.zeros is not None:
            inputs.append(writer.constant(name + ".zeros", matrix.zeros.reshape(-1)))
        attributes = {
            "K": matrix.columns,
            "N": matrix.rows,
            "bits": matrix.bits,
            "block_size": matrix.block,
        }
        if self.dtype == ir.DataType.FLOAT and name not in self.quantizer.recipe.exact:
            # accuracy_level 4 quantises the activations to int8: 6 times faster on a CPU than the default,
            # which dequantises the weights and is slower than fp32. Measured with onnxruntime 1.31.1, one
            # thread, AVX2, one row by 2048 x 8192 in int4: 1.5 ms, 10.6 ms by default, 8.9 ms in fp32.
            attributes["accuracy_level"] = 4
        return writer.node("MatMulNBits", inputs, name, domain=MICROSOFT, attributes=attributes)

    def _floats(self, scales: Floats) -> Floats:
        """Scales in the type of the activations, as MatMulNBits wants them."""
        return as_float(scales, self.dtype, "scales")
