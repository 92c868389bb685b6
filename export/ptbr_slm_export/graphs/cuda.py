"""The `gqa` graph as the CUDA provider wants it: float16, and fit to be captured as a CUDA graph.

A captured step is replayed without ONNX Runtime, so no kernel in it may read host memory. GatherND and Split
copy small tables from there at each run (onnxruntime, providers/cuda/tensor/gather_nd.cc and split.cc);
Gather and Slice take theirs as arguments. In return the rows of one call want logits at the same positions,
those that the first row names: the runtime prefills one row at a time, and a decode step has one position.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm_export.graphs.gqa import LlamaGraph
from ptbr_slm_export.graphs.projections import Projections
from ptbr_slm_export.graphs.weights import LlamaWeights


def build_cuda_graph(config: ModelConfig, weights: LlamaWeights, projections: Projections) -> ir.Model:
    """The model of the module's docstring; inputs and outputs are those of `gqa` with float16 caches."""
    return _CudaGraph(config, weights, projections, ir.DataType.FLOAT16).build()


class _CudaGraph(LlamaGraph):
    def _index(self, logits_index: ir.Value) -> ir.Value:
        """logits_index (B, K) -> the positions of all rows, (K,)."""
        first = self.writer.constant("first_row", np.array(0, dtype=np.int64))
        return self.writer.node("Gather", [logits_index, first], "logits_index.row", attributes={"axis": 0})

    def _wanted_rows(self, x: ir.Value, name: str) -> ir.Value:
        """x (B, S, W) -> (B, K, W)."""
        return self.writer.node("Gather", [x, self.index], name, attributes={"axis": 1})

    def _parted(self, layer: int, qkv: ir.Value) -> list[ir.Value]:
        """qkv (B, S, (H + 2K) * D) -> queries, keys and values."""
        prefix, writer, config = f"layers.{layer}.", self.writer, self.config
        edges = np.cumsum([0, config.q_size, config.kv_size, config.kv_size])
        ends = [writer.constant(f"{prefix}edge.{i}", np.array([edge])) for i, edge in enumerate(edges)]
        axis = writer.constant(prefix + "edge.axis", np.array([2], dtype=np.int64))
        return [
            writer.node("Slice", [qkv, ends[i], ends[i + 1], axis], prefix + part)
            for i, part in enumerate(("query", "key", "value"))
        ]
