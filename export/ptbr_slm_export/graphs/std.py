"""The `std` graph: ONNX's own operators only (opset 24), for TensorRT, and the oracle of the `gqa` graph.

Inputs (B rows, S new tokens a row, K logits wanted a row, L layers, T the fixed capacity in tokens):
    input_ids        int64 (B, S)
    position_ids     int64 (B, S)  place of each token in its text, from 0
    write_indices    int64 (B,)    tokens a row held before this call: where its new keys and values go
    logits_index     int64 (B, K)  positions within this chunk whose logits are wanted
    past_key_values.{i}.key|value  dtype (B, num_kv_heads, T, head_dim)
Outputs:
    logits                 float32 (B, K, V)
    present.{i}.key|value  as the past, meant to be bound to the very same buffer

Rows are padded on the right; any row may hold a past, also where S > 1. Two things are asked of the caller:
write_indices + S <= T for every row, and caches without NaN even where they were never written, since what
the mask hides is still multiplied by zero.

TensorRT's limits shape it (reference: onnx-tensorrt docs/operators.md, TensorRT 10.15): T is a number, not a
name; Attention is 4-D, without past, present or lengths, under one boolean mask that all layers share; no
operator computes with shapes. In fp16 the stream, the norms and the logits stay fp32, with explicit casts: a
strongly typed network has no other way, and TensorRT 11 knows no other network.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm_export.graphs.gqa import FLOAT, INT64, LlamaGraph
from ptbr_slm_export.graphs.projections import Projections
from ptbr_slm_export.graphs.weights import Floats, LlamaWeights

OPSETS = {"": 24}


def build_std_graph(
    config: ModelConfig,
    weights: LlamaWeights,
    projections: Projections,
    *,
    dtype: ir.DataType = FLOAT,
    capacity: int | None = None,
) -> ir.Model:
    """The model of the module's docstring.

    projections: in `dtype` too, and of ONNX's own operators. capacity: tokens a row can hold; None is the
    whole context.
    """
    return _StandardGraph(config, weights, projections, dtype, capacity or config.max_seq_len).build()


class _StandardGraph(LlamaGraph):
    name = "ptbr-slm-std"
    opsets = OPSETS

    def __init__(
        self,
        config: ModelConfig,
        weights: LlamaWeights,
        projections: Projections,
        dtype: ir.DataType,
        capacity: int,
    ) -> None:
        super().__init__(config, weights, projections, dtype)
        self.capacity = capacity

    def _place(self, input_ids: ir.Value) -> ir.Value:
        """The inputs, and what all layers share: shapes, and the mask (B, 1, S, T), under which a token at
        position p sees the places 0 to p.
        """
        writer, config = self.writer, self.config
        self.position_ids = writer.input("position_ids", INT64, ("batch", "sequence"))
        self.write_indices = writer.input("write_indices", INT64, ("batch",))
        logits_index = writer.input("logits_index", INT64, ("batch", "wanted"))
        self.query_heads = self._ints("query.heads", 0, 0, config.num_heads, config.head_dim)
        self.key_heads = self._ints("key.heads", 0, 0, config.num_kv_heads, config.head_dim)
        self.joined_heads = self._ints("joined.heads", 0, 0, config.q_size)
        self.widths = self._ints("qkv.widths", config.q_size, config.kv_size, config.kv_size)
        places = writer.constant("mask.places", np.arange(self.capacity).reshape(1, 1, 1, -1))
        axes = self._ints("mask.axes", 1, 3)
        own = writer.node("Unsqueeze", [self.position_ids, axes], "mask.positions")  # (B, 1, S, 1)
        self.mask = writer.node("LessOrEqual", [places, own], "mask")
        return logits_index

    def _attention(self, layer: int, x: ir.Value) -> ir.Value:
        """Packed QKV, heads, rotation, cache, attention; x (B, S, C) -> (B, S, H*D)."""
        writer, config, prefix = self.writer, self.config, f"layers.{layer}."
        width = config.q_size + 2 * config.kv_size
        dense = self.projections.dense
        qkv = dense(writer, x, prefix + "qkv", width, config.hidden_size, lambda: self.weights.qkv(layer))
        names = [prefix + part for part in ("query", "key", "value")]
        query, key, value = writer.nodes_outputs("Split", [qkv, self.widths], names, attributes={"axis": -1})
        query = self._rotated(layer, query, "q_norm", self.query_heads)  # (B, H, S, D)
        key = self._rotated(layer, key, "k_norm", self.key_heads)  # (B, K, S, D)
        value = self._heads(value, self.key_heads, prefix + "value")
        keys, values = self._cache(layer, "key", key), self._cache(layer, "value", value)  # (B, K, T, D)
        mixed = writer.node(
            "Attention", [query, keys, values, self.mask], prefix + "attention"
        )  # (B, H, S, D), query heads shared out evenly over the key heads
        rows = writer.node("Transpose", [mixed], prefix + "attention.rows", attributes={"perm": [0, 2, 1, 3]})
        return writer.node("Reshape", [rows, self.joined_heads], prefix + "attention.joined")

    def _rotated(self, layer: int, x: ir.Value, norm: str, heads: ir.Value) -> ir.Value:
        """x (B, S, heads * D) -> (B, heads, S, D), normalised where the model has qk_norm, and rotated."""
        name = str(x.name)
        x = self._heads(x, heads, name)
        if self.config.qk_norm:
            x = self._cast(x, FLOAT, name + ".float")
            x = self._norm(x, self.weights.head_norm(layer, norm), f"layers.{layer}.{norm}")
        return self.writer.node(
            "RotaryEmbedding", [x, self.cos, self.sin, self.position_ids], name + ".rotated"
        )

    def _heads(self, x: ir.Value, heads: ir.Value, name: str) -> ir.Value:
        """x (B, S, heads * D) -> (B, heads, S, D)."""
        x = self.writer.node("Reshape", [x, heads], name + ".split")
        return self.writer.node("Transpose", [x], name + ".heads", attributes={"perm": [0, 2, 1, 3]})

    def _cache(self, layer: int, part: str, new: ir.Value) -> ir.Value:
        """The cache (B, K, T, D) with the new (B, K, S, D) written where `write_indices` says."""
        shape = ("batch", self.config.num_kv_heads, self.capacity, self.config.head_dim)
        past = self.writer.input(f"past_key_values.{layer}.{part}", self.dtype, shape)
        name = f"present.{layer}.{part}"
        present = self.writer.node(
            "TensorScatter", [past, new, self.write_indices], name, attributes={"axis": -2}
        )
        self.writer.output(present, name, self.dtype, shape)
        return present

    def _silu(self, layer: int, x: ir.Value) -> ir.Value:
        """x * sigmoid(x): the parser of TensorRT 10 has no Swish."""
        opened = self.writer.node("Sigmoid", [x], f"layers.{layer}.sigmoid")
        return self.writer.node("Mul", [x, opened], f"layers.{layer}.silu")

    def _add_norm(
        self, stream: ir.Value, branch: ir.Value | None, gain: Floats, name: str
    ) -> tuple[ir.Value, ir.Value]:
        """The fp32 stream with the branch added, and its norm in `dtype`."""
        if branch is None:
            stream = self._cast(stream, FLOAT, "embed.stream")
        else:
            branch = self._cast(branch, FLOAT, name + ".branch")
            stream = self.writer.node("Add", [stream, branch], name + ".stream")
        return stream, self._norm(stream, gain, name)

    def _norm(self, x: ir.Value, gain: Floats, name: str) -> ir.Value:
        """RMSNorm over the last axis of an fp32 x, in fp32; the result in `dtype`."""
        scale = self.writer.constant(name + ".gain", gain)
        attributes = {"epsilon": self.config.norm_eps, "axis": -1}
        normed = self.writer.node("RMSNormalization", [x, scale], name, attributes=attributes)
        return self._cast(normed, self.dtype, name + ".cast")

    def _cast(self, x: ir.Value, to: ir.DataType, name: str) -> ir.Value:
        """Between fp32 and `dtype`; nothing where they are the same."""
        if self.dtype == FLOAT:
            return x
        return self.writer.node("Cast", [x], name, attributes={"to": int(to)})

    def _ints(self, name: str, *numbers: int) -> ir.Value:
        return self.writer.constant(name, np.array(numbers, dtype=np.int64))
