"""How a matrix is stored and multiplied: one class for floats, one for blocks, both with three methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class _Table:
    """An int8 matrix whose rows are looked up, and its initializers."""

    matrix: QuantizedMatrix
    codes: ir.Value
    """(rows, blocks, block)."""
    scales: ir.Value
    """(rows, blocks, 1)."""


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
    the model ties them; an int4 one is stored apart, and may have its best logits scored again from int8.
    """

    def __init__(
        self, weights: LlamaWeights, quantizer: Quantizer, dtype: ir.DataType = ir.DataType.FLOAT
    ) -> None:
        self.weights, self.quantizer, self.dtype = weights, quantizer, dtype

    def embed(self, writer: GraphWriter, ids: ir.Value) -> ir.Value:
        """ids (B, S) -> (B, S, C), dequantised row by row."""
        self._table = self._stored(writer, "embedding", self.weights.embedding())
        return self._lookup(writer, self._table, ids, "embed", [0, 0])

    def dense(
        self, writer: GraphWriter, x: ir.Value, name: str, rows: int, columns: int, read: Callable[[], Floats]
    ) -> ir.Value:
        """MatMulNBits: x (..., columns) -> (..., rows)."""
        matrix = self.quantizer.matrix(name, read())
        assert (matrix.rows, matrix.columns) == (rows, columns)
        return self._product(writer, x, name, matrix, writer.constant(name + ".codes", matrix.codes))

    def head(self, writer: GraphWriter, x: ir.Value) -> ir.Value:
        """x (B, K, C) -> (B, K, V)."""
        tied, recipe = self.weights.config.tie_embeddings, self.quantizer.recipe
        if tied and recipe.head_bits == 8:
            return self._product(writer, x, "head", self._table.matrix, self._table.codes)
        weights = self.weights.embedding() if tied else self.weights.head()
        matrix = self.quantizer.matrix("head", weights)
        coarse = self._product(writer, x, "head", matrix, writer.constant("head.codes", matrix.codes))
        best = min(recipe.head_rescored, matrix.rows)
        if not best:
            return coarse
        coarse.name = "head.coarse"  # the node is `head` still, the graph's `logits` are another value
        table = self._table if tied else self._stored(writer, "head.exact", weights)
        return self._rescored(writer, x, coarse, table, best)

    def _rescored(
        self, writer: GraphWriter, x: ir.Value, coarse: ir.Value, table: _Table, best: int
    ) -> ir.Value:
        """coarse (B, K, V) with its `best` largest logits a position computed anew, from x and int8 rows."""
        count = writer.constant("head.best.count", np.array([best], dtype=np.int64))
        attributes = {"axis": -1, "largest": 1, "sorted": 0}
        names = ["head.best.coarse", "head.best"]
        _, ids = writer.nodes_outputs("TopK", [coarse, count], names, attributes=attributes)  # (B, K, best)
        rows = self._lookup(writer, table, ids, "head.best.rows", [0, 0, 0])  # (B, K, best, C)
        axis = writer.constant("head.best.axis", np.array([2], dtype=np.int64))
        row = writer.node("Unsqueeze", [x, axis], "head.best.x")  # (B, K, 1, C)
        scores = writer.node(
            "FusedMatMul", [row, rows], "head.best.row", domain=MICROSOFT, attributes={"transB": 1}
        )  # (B, K, 1, best)
        scores = writer.node("Squeeze", [scores, axis], "head.best.scores")  # (B, K, best)
        return writer.node("ScatterElements", [coarse, ids, scores], "head.rescored", attributes={"axis": -1})

    def _stored(self, writer: GraphWriter, name: str, weights: Floats) -> _Table:
        """A matrix whose rows are looked up.

        The codes keep MatMulNBits' three dimensions, so that a tied head reads the very same initializer.
        """
        matrix = self.quantizer.matrix(name, weights)
        codes = writer.constant(name + ".codes", matrix.codes)
        scales = writer.constant(name + ".scales", self._floats(matrix.scales[:, :, None]))
        return _Table(matrix, codes, scales)

    def _lookup(
        self, writer: GraphWriter, table: _Table, ids: ir.Value, name: str, dimensions: list[int]
    ) -> ir.Value:
        """The rows of int8 `table` that ids (..., ) name -> (..., C); dimensions: a 0 for each of ids'.

        GatherBlockQuantized takes the block as its last axis, and a free Reshape joins the blocks.
        """
        matrix = table.matrix
        blocks = writer.node(
            "GatherBlockQuantized",
            [table.codes, ids, table.scales],
            name + ".blocks",
            domain=MICROSOFT,
            attributes={"bits": 8, "block_size": matrix.block, "gather_axis": 0, "quantize_axis": 2},
        )  # (..., C / block, block)
        shape = writer.constant(name + ".shape", np.array([*dimensions, matrix.columns], dtype=np.int64))
        return writer.node("Reshape", [blocks, shape], name)

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
