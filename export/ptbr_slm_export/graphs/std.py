"""The `std` graph: ONNX's own operators only (opset 24), for TensorRT, and the oracle of the `gqa` graph.

Inputs (B rows, S new tokens a row, K logits wanted a row, L layers, T the fixed capacity in tokens):
    input_ids        int64 (B, S)
    position_ids     int64 (B, S)  position of each token in its text, from 0
    write_indices    int64 (B,)    tokens a row held before this call: where its new keys and values go
    logits_index     int64 (B, K)  positions within this chunk whose logits are wanted
    past_key_values.{i}.key|value  dtype (B, num_kv_heads, T, head_dim)
Outputs:
    logits                 float32 (B, K, V)
    present.{i}.key|value  as the past, meant to be bound to the very same buffer

Rows are padded on the right; any row may hold a past, also where S > 1. Two things are asked of the caller:
write_indices + S <= T for every row, and caches without NaN even where they were never written, since what
the mask hides is still multiplied by zero.

TensorRT's limits shape it (onnx-tensorrt docs/operators.md, TensorRT 10.15): T is a number, not a name; one
boolean mask is shared by all layers; no operator computes with shapes. In fp16 the stream, the norms and the
logits stay fp32, with explicit casts: a strongly typed network has no other way, and TensorRT 11 knows no
other network.

Attention is written out as two products and a softmax unless `fused` is asked for. The parser makes of ONNX's
Attention a layer that must find a fused kernel for the card, or the build fails; the attribute that lifts
this, TRT_decomposable, ONNX Runtime refuses as no part of ONNX. Products can always be built.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm_export.graphs.gqa import FLOAT, INT64, LlamaGraph
from ptbr_slm_export.graphs.projections import Projections
from ptbr_slm_export.llama import Floats, LlamaWeights

OPSETS = {"": 24}
MAX_CAPACITY = 16_384
"""Tokens. A prefill chunk of 256 then has 128 MiB of scores a layer in fp16 with 16 heads, should the
products not be fused, and every text reserves its whole cache."""
_HIDDEN = -65504.0
"""The score of what a token must not see: the lowest of fp16, which softmax turns into exactly 0."""


def build_std_graph(
    config: ModelConfig,
    weights: LlamaWeights,
    projections: Projections,
    *,
    dtype: ir.DataType = FLOAT,
    capacity: int | None = None,
    fused: bool = False,
) -> ir.Model:
    """The model of the module's docstring.

    projections: in `dtype` too, and of ONNX's own operators. capacity: tokens a row can hold; None is the
    whole context. fused: ONNX's Attention in place of products. Raises E_MODEL_INVALID beyond MAX_CAPACITY.
    """
    capacity = capacity or config.max_seq_len
    if capacity > MAX_CAPACITY:
        raise SlmError(
            "E_MODEL_INVALID",
            f"o contexto deste modelo é de {capacity} tokens; para o TensorRT, cujo cache tem sempre o "
            f"tamanho do contexto inteiro, vão até {MAX_CAPACITY}.",
            where="max_position_embeddings",
            hint="Use:  ptbr-slm export MODELO -o PASTA --target cuda",
        )
    return _StandardGraph(config, weights, projections, dtype, capacity, fused).build()


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
        fused: bool,
    ) -> None:
        super().__init__(config, weights, projections, dtype)
        self.capacity, self.fused = capacity, fused

    def _shared_inputs(self, input_ids: ir.Value) -> ir.Value:
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
        if not self.fused:
            self._shapes_of_products()
        return logits_index

    def _shapes_of_products(self) -> None:
        """Query heads that share a key head, G of them, are rows of one product: (B, H, S, .) read as
        (B, K, G*S, .) and back, without moving anything.
        """
        heads, kv_heads, width = self.config.num_heads, self.config.num_kv_heads, self.config.head_dim
        self.grouped_queries = self._ints("grouped.queries", 0, kv_heads, -1, width)
        self.grouped_scores = self._ints("grouped.scores", 0, kv_heads, -1, self.capacity)
        self.single_scores = self._ints("single.scores", 0, heads, -1, self.capacity)
        self.single_mixed = self._ints("single.mixed", 0, heads, -1, width)
        self.scale = self._floats("attention.scale", np.array([width**-0.5], dtype=np.float32))
        self.hidden = self._floats("attention.hidden", np.array([_HIDDEN], dtype=np.float32))

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
        attend = self._attention_node if self.fused else self._products
        mixed = attend(layer, query, keys, values)  # (B, H, S, D)
        rows = writer.node("Transpose", [mixed], prefix + "attention.rows", attributes={"perm": [0, 2, 1, 3]})
        return writer.node("Reshape", [rows, self.joined_heads], prefix + "attention.joined")

    def _attention_node(self, layer: int, query: ir.Value, keys: ir.Value, values: ir.Value) -> ir.Value:
        """ONNX's own, 4-D: query heads are shared out evenly over the key heads."""
        inputs = [query, keys, values, self.mask]
        return self.writer.node("Attention", inputs, f"layers.{layer}.attention")

    def _products(self, layer: int, query: ir.Value, keys: ir.Value, values: ir.Value) -> ir.Value:
        """softmax(query keys^T / sqrt(D)) values; the queries are scaled first, lest fp16 overflow."""
        node, name = self.writer.node, f"layers.{layer}.attention"
        query = node("Mul", [query, self.scale], name + ".scaled")
        query = node("Reshape", [query, self.grouped_queries], name + ".queries")  # (B, K, G*S, D)
        turned = node("Transpose", [keys], name + ".keys", attributes={"perm": [0, 1, 3, 2]})  # (B, K, D, T)
        scores = node("MatMul", [query, turned], name + ".products")  # (B, K, G*S, T)
        scores = node("Reshape", [scores, self.single_scores], name + ".scores")  # (B, H, S, T)
        scores = node("Where", [self.mask, scores, self.hidden], name + ".seen")
        shares = node("Softmax", [scores], name + ".shares", attributes={"axis": -1})
        shares = node("Reshape", [shares, self.grouped_scores], name + ".grouped")  # (B, K, G*S, T)
        mixed = node("MatMul", [shares, values], name + ".mixed")  # (B, K, G*S, D)
        return node("Reshape", [mixed, self.single_mixed], name)  # (B, H, S, D)

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
        sigmoid = self.writer.node("Sigmoid", [x], f"layers.{layer}.sigmoid")
        return self.writer.node("Mul", [x, sigmoid], f"layers.{layer}.silu")

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
