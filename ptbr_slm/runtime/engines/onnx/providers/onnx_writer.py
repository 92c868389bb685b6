"""Small ONNX graphs as bytes, without the onnx package, which the runtime does not need otherwise.

Writes the few fields of the ONNX protobuf that a list of standard nodes takes (onnx/onnx, onnx/onnx.proto);
a test has onnx's own checker read them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

OPSET = 21
IR_VERSION = 10
_ELEMENTS = {"float32": 1, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}
_VARINT, _BYTES, _FLOAT = 0, 2, 5
_KIND_FLOAT, _KIND_INT = 1, 2


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of the standard domain."""

    op: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    attributes: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A graph input or output; names of free dimensions are strings."""

    name: str
    dtype: str
    """NumPy's name of the element."""
    shape: Sequence[int | str]


def model_bytes(
    name: str,
    nodes: Sequence[Node],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    constants: Mapping[str, npt.ArrayLike] | None = None,
) -> bytes:
    """A whole model, as `onnxruntime.InferenceSession` takes it."""
    graph = b"".join(
        [
            *(_message(1, _node(node)) for node in nodes),
            _text(2, name),
            *(_message(5, _constant(key, np.asarray(value))) for key, value in (constants or {}).items()),
            *(_message(11, _value(tensor)) for tensor in inputs),
            *(_message(12, _value(tensor)) for tensor in outputs),
        ]
    )
    return _number(1, IR_VERSION) + _message(8, _number(2, OPSET)) + _message(7, graph)


def _node(node: Node) -> bytes:
    parts = [_text(1, name) for name in node.inputs] + [_text(2, name) for name in node.outputs]
    parts += [_text(3, node.outputs[0]), _text(4, node.op)]
    for name, value in node.attributes.items():
        if isinstance(value, float):
            body = _text(1, name) + _key(2, _FLOAT) + struct.pack("<f", value) + _number(20, _KIND_FLOAT)
        else:
            body = _text(1, name) + _number(3, value) + _number(20, _KIND_INT)
        parts.append(_message(5, body))
    return b"".join(parts)


def _constant(name: str, array: npt.NDArray[np.generic]) -> bytes:
    dims = b"".join(_number(1, size) for size in array.shape)
    return dims + _number(2, _ELEMENTS[array.dtype.name]) + _text(8, name) + _message(9, array.tobytes())


def _value(tensor: Tensor) -> bytes:
    dims = [_number(1, size) if isinstance(size, int) else _text(2, size) for size in tensor.shape]
    shape = b"".join(_message(1, dim) for dim in dims)
    kind = _message(1, _number(1, _ELEMENTS[tensor.dtype]) + _message(2, shape))
    return _text(1, tensor.name) + _message(2, kind)


def _message(number: int, body: bytes) -> bytes:
    return _key(number, _BYTES) + _varint(len(body)) + body


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _number(number: int, value: int) -> bytes:
    return _key(number, _VARINT) + _varint(value & (1 << 64) - 1)  # a negative one in two's complement


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
