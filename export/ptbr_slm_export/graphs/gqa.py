"""The `gqa` graph: one graph for prefill and decode, written node by node from the weights.

Inputs (B rows, S new tokens a row, K logits wanted a row, L layers):
    input_ids              int64 (B, S)
    seqlens_k              int32 (B,)    tokens of the row after this call, minus 1
    total_sequence_length  int32 ()      the longest row after this call
    logits_index           int64 (B, K)  positions within this chunk whose logits are wanted
    past_key_values.{i}.key|value  (B, num_kv_heads, capacity, head_dim) in the graph's float type
Outputs:
    logits                 float32 (B, K, V)
    present.{i}.key|value  as the past, meant to be bound to the very same buffer

Rows are padded on the right. GroupQueryAttention takes S > 1 with a past only where B = 1.

The float type is float32 for the CPU provider, whose fp16 products are slow, and float16 for CUDA, which has
no fp32 GroupQueryAttention. In float16 the norms still sum their squares in float32: stash_type 1, and for
SkipSimplifiedLayerNormalization the provider's strict mode (see `runtime.engines.onnx.providers.cuda`).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm_export.graphs.projections import Projections
from ptbr_slm_export.graphs.writer import MICROSOFT, OPSETS, GraphWriter, as_float
from ptbr_slm_export.llama import Floats, LlamaWeights

FLOAT, INT32, INT64 = ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64


def build_gqa_graph(
    config: ModelConfig, weights: LlamaWeights, projections: Projections, dtype: ir.DataType = FLOAT
) -> ir.Model:
    """The model of the module's docstring. `projections` decides how matrices are stored and multiplied.

    dtype: the float type, FLOAT or FLOAT16, which must be that of `projections`.
    """
    return LlamaGraph(config, weights, projections, dtype).build()


def build_cuda_graph(config: ModelConfig, weights: LlamaWeights, projections: Projections) -> ir.Model:
    """For the CUDA provider: inputs and outputs are those above, with float16 caches."""
    return _CudaGraph(config, weights, projections, ir.DataType.FLOAT16).build()


class LlamaGraph:
    """The graph as it grows. Another way to be told where tokens stand is a subclass: see `genai`; and so
    are other operators for the same parts: see `std`.
    """

    name = "ptbr-slm-gqa"
    opsets = OPSETS
    wanted: int | str = "wanted"
    """How many rows get logits: K."""

    def __init__(
        self, config: ModelConfig, weights: LlamaWeights, projections: Projections, dtype: ir.DataType
    ) -> None:
        self.config, self.weights, self.projections, self.dtype = config, weights, projections, dtype
        self.writer = GraphWriter(self.name, self.opsets)

    def build(self) -> ir.Model:
        """Embedding, layers, the wanted rows, the head."""
        writer, config = self.writer, self.config
        input_ids = writer.input("input_ids", INT64, ("batch", "sequence"))
        logits_index = self._shared_inputs(input_ids)
        cos, sin = rope_tables(config)
        self.cos, self.sin = self._floats("rope.cos", cos), self._floats("rope.sin", sin)
        self.index = self._index(logits_index)

        stream = self.projections.embed(writer, input_ids)  # (B, S, C)
        branch: ir.Value | None = None
        for layer in range(config.num_layers):
            stream, branch = self._layer(layer, stream, branch)
        _, normed = self._add_norm(stream, branch, self.weights.final_norm(), "norm")
        logits = self.projections.head(writer, normed)  # (B, K, V)
        if self.dtype != FLOAT:
            logits = writer.node("Cast", [logits], "logits.float32", attributes={"to": FLOAT})
        writer.output(logits, "logits", FLOAT, ("batch", self.wanted, config.vocab_size))
        writer.outputs.insert(0, writer.outputs.pop())
        return writer.model()

    def _shared_inputs(self, input_ids: ir.Value) -> ir.Value:
        """Make what tells where tokens stand; logits_index, (B, K)."""
        self.seqlens_k, self.total_length, logits_index = self.positions(input_ids)
        return logits_index

    def positions(self, input_ids: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """seqlens_k (B,), total_sequence_length () and logits_index (B, K): here, inputs."""
        writer = self.writer
        return (
            writer.input("seqlens_k", INT32, ("batch",)),
            writer.input("total_sequence_length", INT32, ()),
            writer.input("logits_index", INT64, ("batch", self.wanted)),
        )

    def _index(self, logits_index: ir.Value) -> ir.Value:
        """logits_index (B, K) as `_wanted_rows` takes it: (B, K, 1)."""
        axis = self.writer.constant("last_axis", np.array([-1], dtype=np.int64))
        return self.writer.node("Unsqueeze", [logits_index, axis], "logits_index.pairs")

    def _layer(self, layer: int, stream: ir.Value, branch: ir.Value | None) -> tuple[ir.Value, ir.Value]:
        """The stream after this layer's attention, and the feed-forward branch still to be added to it."""
        prefix, dense = f"layers.{layer}.", self.projections.dense
        stream, normed = self._add_norm(
            stream, branch, self.weights.norm(layer, "input_layernorm"), prefix + "attention_norm"
        )
        mixed = self._attention(layer, normed)  # (B, S, H*D)
        if layer == self.config.num_layers - 1:
            # Only the wanted rows go on: after the last attention no row reads another. In a prefill with
            # K = 1 this saves the last feed-forward and all but one row of the head.
            stream = self._wanted_rows(stream, "wanted.stream")  # (B, K, C)
            mixed = self._wanted_rows(mixed, "wanted.attention")  # (B, K, H*D)
        out = dense(self.writer, mixed, prefix + "attention_out", self.config.hidden_size, self.config.q_size,
                    lambda: self.weights.attention_out(layer))  # fmt: skip
        stream, normed = self._add_norm(
            stream, out, self.weights.norm(layer, "post_attention_layernorm"), prefix + "feed_forward_norm"
        )
        return stream, self._feed_forward(layer, normed)

    def _attention(self, layer: int, x: ir.Value) -> ir.Value:
        """Packed QKV, then rotation, cache and attention in one node; x (B, S, C) -> (B, S, H*D).

        With qk_norm queries and keys are normalised before: not every version of the node can do it itself.
        """
        writer, config, prefix = self.writer, self.config, f"layers.{layer}."
        width = config.q_size + 2 * config.kv_size
        qkv = self.projections.dense(
            writer, x, prefix + "qkv", width, config.hidden_size, lambda: self.weights.qkv(layer)
        )
        cache_shape = ("batch", config.num_kv_heads, "capacity", config.head_dim)
        past = [
            writer.input(f"past_key_values.{layer}.{part}", self.dtype, cache_shape)
            for part in ("key", "value")
        ]
        mixed, *present = writer.nodes_outputs(
            "GroupQueryAttention",
            [
                *(self._normalised(layer, qkv) if config.qk_norm else (qkv, None, None)),
                *past,
                self.seqlens_k,
                self.total_length,
                self.cos,
                self.sin,
            ],
            [prefix + "attention", f"present.{layer}.key", f"present.{layer}.value"],
            domain=MICROSOFT,
            attributes={"num_heads": config.num_heads, "kv_num_heads": config.num_kv_heads, "do_rotary": 1},
        )
        for value in present:
            assert value.name is not None
            writer.output(value, value.name, self.dtype, cache_shape)
        return mixed

    def _normalised(self, layer: int, qkv: ir.Value) -> list[ir.Value]:
        """qkv (B, S, (H + 2K) * D) -> queries and keys with each head normalised, and the values."""
        writer, config, prefix = self.writer, self.config, f"layers.{layer}."
        parts = self._split_qkv(layer, qkv)
        attributes = {"epsilon": config.norm_eps, "axis": -1, "stash_type": 1}
        normalised = []
        for part, name in zip(parts[:2], ("q_norm", "k_norm"), strict=True):
            heads = np.array([0, 0, -1, config.head_dim], dtype=np.int64)
            flat = np.array([0, 0, -1], dtype=np.int64)
            gain = self._floats(f"{prefix}{name}.gain", self.weights.head_norm(layer, name))
            x = writer.node(
                "Reshape", [part, writer.constant(f"{prefix}{name}.heads", heads)], f"{prefix}{name}.in"
            )
            x = writer.node("SimplifiedLayerNormalization", [x, gain], prefix + name, attributes=attributes)
            normalised.append(
                writer.node(
                    "Reshape", [x, writer.constant(f"{prefix}{name}.flat", flat)], f"{prefix}{name}.out"
                )
            )
        return [*normalised, parts[2]]

    def _split_qkv(self, layer: int, qkv: ir.Value) -> list[ir.Value]:
        """qkv (B, S, (H + 2K) * D) -> queries, keys and values."""
        prefix, config = f"layers.{layer}.", self.config
        widths = np.array([config.q_size, config.kv_size, config.kv_size], dtype=np.int64)
        names = [prefix + part for part in ("query", "key", "value")]
        inputs = [qkv, self.writer.constant(prefix + "widths", widths)]
        return self.writer.nodes_outputs("Split", inputs, names, attributes={"axis": -1})

    def _feed_forward(self, layer: int, x: ir.Value) -> ir.Value:
        """SwiGLU; x (B, S, C) -> (B, S, C)."""
        writer, config, prefix = self.writer, self.config, f"layers.{layer}."
        hidden, wide = config.hidden_size, config.intermediate_size
        dense = self.projections.dense
        gate = dense(writer, x, prefix + "gate", wide, hidden, lambda: self.weights.gate(layer))
        up = dense(writer, x, prefix + "up", wide, hidden, lambda: self.weights.up(layer))
        product = writer.node("Mul", [self._silu(layer, gate), up], prefix + "gated")
        return dense(writer, product, prefix + "down", hidden, wide, lambda: self.weights.down(layer))

    def _silu(self, layer: int, x: ir.Value) -> ir.Value:
        """x * sigmoid(x), which QuickGelu with alpha 1 is in one node."""
        name = f"layers.{layer}.silu"
        return self.writer.node("QuickGelu", [x], name, domain=MICROSOFT, attributes={"alpha": 1.0})

    def _add_norm(
        self,
        stream: ir.Value,
        branch: ir.Value | None,
        gain: Floats,
        name: str,
    ) -> tuple[ir.Value, ir.Value]:
        """(stream + branch, its RMSNorm times gain), both as wide as the stream; no branch before layer 0."""
        writer, epsilon = self.writer, self.config.norm_eps
        scale = self._floats(name + ".gain", gain)
        if branch is None:
            attributes = {"epsilon": epsilon, "axis": -1, "stash_type": 1}
            return stream, writer.node(
                "SimplifiedLayerNormalization", [stream, scale], name, attributes=attributes
            )
        normed, _, _, total = writer.nodes_outputs(
            "SkipSimplifiedLayerNormalization",
            [stream, branch, scale],
            [name, "", "", name + ".stream"],
            domain=MICROSOFT,
            attributes={"epsilon": epsilon},
        )
        return total, normed

    def _floats(self, name: str, array: Floats) -> ir.Value:
        """A small initializer in the graph's float type."""
        return self.writer.constant(name, as_float(array, self.dtype, name))

    def _wanted_rows(self, x: ir.Value, name: str) -> ir.Value:
        """x (B, S, W) -> (B, K, W), the positions that `logits_index` names."""
        return self.writer.node("GatherND", [x, self.index], name, attributes={"batch_dims": 1})


class _CudaGraph(LlamaGraph):
    """The same as the CUDA provider wants it: float16, and fit to be captured as a CUDA graph.

    A captured step is replayed without ONNX Runtime, so no kernel in it may read host memory. GatherND and
    Split copy small tables from there at each run (onnxruntime, providers/cuda/tensor/gather_nd.cc and
    split.cc); Gather and Slice take theirs as arguments. In return the rows of one call want logits at the
    same positions, those that the first row names: the runtime prefills one row at a time, and a decode step
    has one position.
    """

    def _index(self, logits_index: ir.Value) -> ir.Value:
        """logits_index (B, K) -> the positions of all rows, (K,)."""
        first = self.writer.constant("first_row", np.array(0, dtype=np.int64))
        return self.writer.node("Gather", [logits_index, first], "logits_index.row", attributes={"axis": 0})

    def _wanted_rows(self, x: ir.Value, name: str) -> ir.Value:
        """x (B, S, W) -> (B, K, W)."""
        return self.writer.node("Gather", [x, self.index], name, attributes={"axis": 1})

    def _split_qkv(self, layer: int, qkv: ir.Value) -> list[ir.Value]:
        """qkv (B, S, (H + 2K) * D) -> queries, keys and values."""
        prefix, writer, config = f"layers.{layer}.", self.writer, self.config
        edges = np.cumsum([0, config.q_size, config.kv_size, config.kv_size])
        ends = [writer.constant(f"{prefix}edge.{i}", np.array([edge])) for i, edge in enumerate(edges)]
        axis = writer.constant(prefix + "edge.axis", np.array([2], dtype=np.int64))
        return [
            writer.node("Slice", [qkv, ends[i], ends[i + 1], axis], prefix + part)
            for i, part in enumerate(("query", "key", "value"))
        ]


def rope_tables(config: ModelConfig) -> tuple[Floats, Floats]:
    """cos, sin: (max_seq_len, D/2) in fp32, angle = position * frequency."""
    angles = np.outer(np.arange(config.max_seq_len, dtype=np.float64), config.rope_frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
