"""How a matrix is stored and multiplied: one class a precision, all with the same three methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ptbr_slm_export.nodes import MICROSOFT, GraphWriter
from ptbr_slm_export.weights import Floats, LlamaWeights


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
        return writer.node("FusedMatMul", [x, self._table], "head", domain=MICROSOFT, attributes={"transB": 1})
