"""Replaces the compiled OrtValue: tensors in the card's memory, or the real ones for the host."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np

from simulated_ort.card import Arena, Card

CPU, GPU = 0, 1
"""`OrtDevice.device_type`."""

_NAMES = {
    "float32": ("tensor(float)", 1),
    "float16": ("tensor(float16)", 10),
    "float64": ("tensor(double)", 11),
    "int32": ("tensor(int32)", 6),
    "int64": ("tensor(int64)", 7),
    "bool": ("tensor(bool)", 9),
    "uint8": ("tensor(uint8)", 2),
}


class DeviceValue:
    """A tensor on the card."""

    def __init__(self, card: Card, arena: Arena, shape: Any, dtype: Any) -> None:
        self._card, self._shape, self._dtype = card, [int(size) for size in shape], np.dtype(dtype)
        nbytes = math.prod(self._shape) * self._dtype.itemsize
        self._allocation, piece = card.allocate(arena, nbytes, self._dtype)
        weakref.finalize(self, card.free, arena, self._allocation, piece).atexit = False

    def data_ptr(self) -> int:
        return self._allocation.address

    def numpy(self) -> np.ndarray:
        self._card.counts["wait.read"] += 1
        self._card.counts["read.bytes"] += self._allocation.nbytes
        return self._allocation.content.view(self._dtype).reshape(self._shape).copy()

    def update_inplace(self, data: Any) -> None:
        if isinstance(data, DeviceValue):
            self._card.counts["copy"] += 1
            self._allocation.content[:] = data._allocation.content
            return
        if data.dtype != self._dtype or data.nbytes != self._allocation.nbytes:
            raise RuntimeError("The input size of numpy arrays does not match the size of the OrtValue.")
        self._card.counts["upload"] += 1
        self._allocation.content[:] = np.ascontiguousarray(data).reshape(-1).view(np.uint8)

    def shape(self) -> list[int]:
        return list(self._shape)

    def data_type(self) -> str:
        return _NAMES[self._dtype.name][0]

    def element_type(self) -> int:
        return _NAMES[self._dtype.name][1]

    def device_name(self) -> str:
        return "cuda"

    def tensor_size_in_bytes(self) -> int:
        return self._allocation.nbytes

    def has_value(self) -> bool:
        return True

    def is_tensor(self) -> bool:
        return True

    def is_sparse_tensor(self) -> bool:
        return False

    def is_tensor_sequence(self) -> bool:
        return False

    def _is_webgpu_buffer(self) -> bool:
        return False


def ort_value_class(card: Card, real: Any) -> type:
    """The class that `onnxruntime_pybind11_state.OrtValue` becomes."""

    class Either(type):
        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, (DeviceValue, real))

        def __getattr__(cls, name: str) -> Any:
            return getattr(real, name)

    class OrtValue(metaclass=Either):
        @staticmethod
        def ortvalue_from_shape_and_type(shape: Any, element_type: Any, device: Any) -> Any:
            if device.device_type() == CPU:
                return real.ortvalue_from_shape_and_type(shape, element_type, device)
            if card.absent:
                raise RuntimeError(
                    "Can't allocate memory on the CUDA device using this package of OnnxRuntime."
                )
            return DeviceValue(card, card.python_arena, shape, element_type)

        @staticmethod
        def ortvalue_from_numpy(array: Any, device: Any) -> Any:
            if device.device_type() == CPU:
                return real.ortvalue_from_numpy(array, device)
            value = DeviceValue(card, card.python_arena, array.shape, array.dtype)
            value.update_inplace(array)
            return value

    return OrtValue
