"""What the simulated provider must know of a graph: which inputs its kernels read on the host."""

from __future__ import annotations

from typing import Any

_ON_THE_HOST = {
    "GroupQueryAttention": {6},
    "Pad": {1, 2, 3},
    "Slice": {1, 2, 3, 4},
    "Reshape": {1},
    "Squeeze": {1},
    "Unsqueeze": {1},
    "Expand": {1},
    "ReduceSum": {1},
    "ReduceMax": {1},
    "CumSum": {1},
    "TopK": {1},
    "Range": {0, 1, 2},
    "ConstantOfShape": {0},
    "Tile": {1},
}
"""Operator -> inputs that the CUDA kernel takes in host memory (`InputMemoryType(OrtMemTypeCPUInput)`)."""


class GraphFacts:
    """Of a path or serialized model."""

    def __init__(self, model: str | bytes) -> None:
        import onnx

        loaded = (
            onnx.load_from_string(model)
            if isinstance(model, bytes)
            else onnx.load(model, load_external_data=False)
        )
        inputs = {value.name for value in loaded.graph.input}
        host: dict[str, list[bool]] = {}
        for node in loaded.graph.node:
            for index, name in enumerate(node.input):
                if name in inputs:
                    host.setdefault(name, []).append(index in _ON_THE_HOST.get(node.op_type, ()))
        self.host_inputs = {name for name, uses in host.items() if all(uses)}
        self.operators = {node.op_type for node in loaded.graph.node}
        self.quantized = "MatMulNBits" in self.operators
        self.weight_bytes = sum(map(_tensor_bytes, loaded.graph.initializer))


def _tensor_bytes(tensor: Any) -> int:
    import math

    from onnx import helper

    size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return math.prod(tensor.dims) * size
