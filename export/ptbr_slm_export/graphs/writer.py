"""A thin writer over onnx-ir: names every node and value after its part of the model, keeps them in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ptbr_slm.errors import SlmError

MICROSOFT = "com.microsoft"
OPSETS = {"": 21, MICROSOFT: 1}
IR_VERSION = 10

Array = npt.NDArray[Any]
FLOAT16_MAX = float(np.finfo(np.float16).max)


class GraphWriter:
    """Collects inputs, initializers and nodes, then makes the `ir.Model`."""

    def __init__(self, name: str, opsets: Mapping[str, int] = OPSETS, ir_version: int = IR_VERSION) -> None:
        self.name, self.opsets, self.ir_version = name, dict(opsets), ir_version
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self.initializers: list[ir.Value] = []
        self.nodes: list[ir.Node] = []

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """A graph input; strings are the names of free dimensions."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
        """Make `value` a graph output under this name."""
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self.outputs.append(value)

    def constant(self, name: str, array: Array) -> ir.Value:
        """An initializer that is in memory already."""
        contiguous = np.ascontiguousarray(array).reshape(array.shape)  # which gives a scalar a dimension
        return self._initializer(ir.Tensor(contiguous, name=name))

    def tensor(self, tensor: ir.TensorProtocol) -> ir.Value:
        """An initializer that is a tensor already, such as one in another graph's data file."""
        return self._initializer(tensor)

    def weight(
        self,
        name: str,
        shape: tuple[int, ...],
        make: Callable[[], Array],
        dtype: ir.DataType = ir.DataType.FLOAT,
    ) -> ir.Value:
        """A float initializer, made when it is written to disk: one matrix at a time is in memory."""

        def evaluate() -> ir.Tensor:
            array = np.ascontiguousarray(as_float(make(), dtype, name))
            assert array.shape == shape, (name, array.shape, shape)
            return ir.Tensor(array, name=name)

        return self._initializer(ir.LazyTensor(evaluate, dtype, ir.Shape(shape), name=name))

    def node(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """Append a node with one output; the output takes the node's name."""
        return self.nodes_outputs(op, inputs, [name], domain=domain, attributes=attributes)[0]

    def nodes_outputs(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        names: Sequence[str],
        *,
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> list[ir.Value]:
        """Append a node with an output for each of `names` ("" leaves an optional output out)."""
        outputs = [ir.Value(name=name) for name in names]
        self.nodes.append(
            ir.node(
                op, inputs=inputs, attributes=attributes or {}, domain=domain, outputs=outputs, name=names[0]
            )
        )
        return outputs

    def model(self) -> ir.Model:
        """The finished model."""
        graph = ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self.nodes,
            initializers=self.initializers,
            opset_imports=self.opsets,
            name=self.name,
        )
        return ir.Model(graph, ir_version=self.ir_version, producer_name="ptbr-slm")

    def _initializer(self, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape),
            const_value=tensor,
        )
        self.initializers.append(value)
        return value


def as_float(array: Array, dtype: ir.DataType, name: str) -> Array:
    """Weights in FLOAT or FLOAT16. Raises E_MODEL_INVALID for one that float16 cannot hold."""
    if dtype == ir.DataType.FLOAT16 and array.size and (largest := float(np.abs(array).max())) > FLOAT16_MAX:
        raise SlmError(
            "E_MODEL_INVALID",
            f"o peso {name} chega a {largest:.3g}, e o fp16 das GPUs só vai até {FLOAT16_MAX:.0f}.",
            where=name,
            hint="Exporte para CPU:  ptbr-slm export MODELO -o PASTA --target cpu",
        )
    return array.astype(dtype.numpy(), copy=False)
