"""Buffers in a device's memory, allocated, moved and grown by ONNX Runtime itself: no CUDA binding is needed.

A move is a graph of one node, Identity or Pad, run over raw addresses. Moves are rare (a capacity bucket is
left, rows change places), so their bindings are made when they are needed.

Buffers come from the allocator of the moves' own session, whose options say how it grows. An `OrtValue` made
without a session comes from an allocator of Python's own, which always grows by doubling and gives nothing
back: over a stand-in for the CUDA runtime, onnxruntime-gpu 1.31.1 took 1,024 MB for 48 buffers of 16 MB
there, and 768 from a session with `kSameAsRequested`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ptbr_slm.runtime.onnx.gpu.home_thread import HomeThread
from ptbr_slm.runtime.onnx.memory import OUT_OF_MEMORY, Array, Found
from ptbr_slm.runtime.onnx.tiny_graph import Node, Tensor, model_bytes

Providers = Sequence[str | tuple[str, dict[str, str]]]

_SHRINK = "memory.enable_memory_arena_shrinkage"
"""Run option: when the run is over, the session's allocator gives back what nothing lies in."""


class DeviceArray:
    """A tensor in the device's memory, with the facts that the host may know."""

    def __init__(
        self, shape: Sequence[int], dtype: type[np.generic], device: str, session: Any = None
    ) -> None:
        """session: whose allocator it comes from, instead of Python's own."""
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        make = getattr(session, "create_ortvalue_from_shape_and_type", None)  # not in 1.26
        make = make or ort.OrtValue.ortvalue_from_shape_and_type
        self.value = make(list(shape), dtype, device, 0)
        self.pointer = int(self.value.data_ptr())

    def upload(self, array: Array) -> None:
        """Overwrite it with a host array of its shape."""
        self.value.update_inplace(array)

    def read(self) -> Array:
        """A copy on the host."""
        copied: Array = self.value.numpy()
        return copied


class DeviceMemory:
    """`Memory` over `DeviceArray`s."""

    shared = False

    def __init__(
        self,
        device: str,
        providers: Providers,
        home: HomeThread | None = None,
        capturing: Providers | None = None,
    ) -> None:
        """device: ONNX Runtime's name (`cuda`); providers: those of the model's session, without captures;
        home: the thread for all runs, where there is one; capturing: the providers with captures, if wanted.
        """
        self.device = device
        self._providers, self._home = list(providers), home
        self._capturing = None if capturing is None else list(capturing)

    @property
    def captures(self) -> bool:
        """Whether `open` makes sessions that may capture runs."""
        return self._capturing is not None

    def together(self, work: Callable[[], Found]) -> Found:
        """See `Memory.together`: one change of threads."""
        return work() if self._home is None else self._home.run(work)

    def array(self, shape: Sequence[int], dtype: type[np.generic]) -> DeviceArray:
        """A new array of whatever was there before. What moves left behind goes first, if need be."""
        try:
            return DeviceArray(shape, dtype, self.device, self._identity)
        except Exception as error:  # ORT's exceptions share no base class but Exception
            if not any(word in str(error) for word in OUT_OF_MEMORY):
                raise
        self.trim()
        return DeviceArray(shape, dtype, self.device, self._identity)

    def trim(self) -> None:
        """See `Memory.trim`."""
        if self.device == "cpu":
            return
        options = ort.RunOptions()
        options.add_run_config_entry(_SHRINK, "gpu:0")
        self._copy(self._spare.pointer, self._spare.pointer + 4, 4, options)

    def zeros(self, shape: Sequence[int], dtype: type[np.generic]) -> DeviceArray:
        """See `Memory.zeros`. Fresh memory may hold NaN, and 0 x NaN is NaN even where attention masks."""
        array = self.array(shape, dtype)
        array.upload(np.zeros(shape, dtype=dtype))
        return array

    def pointer(self, buffer: DeviceArray) -> int:
        """See `Memory.pointer`."""
        return buffer.pointer

    def grown(self, buffer: DeviceArray, slots: int, capacity: int, used: int) -> DeviceArray:
        """See `Memory.grown`; copies whole rows, not only what is used."""
        rows, heads, old, width = buffer.shape
        new = self.array((slots, heads, capacity, width), buffer.dtype.type)
        pads = np.array([0, 0, 0, 0, slots - rows, 0, capacity - old, 0], dtype=np.int64)
        io = self._pad.io_binding()
        io.bind_input("pads", "cpu", 0, np.int64, pads.shape, pads.ctypes.data)
        # Two fp16 or one fp32: Pad only moves bits, and the CPU provider has no fp16 kernel for it.
        self._bind(io.bind_input, "x", self._halved(buffer.shape, buffer.dtype), buffer.pointer)
        self._bind(io.bind_output, "y", self._halved(new.shape, new.dtype), new.pointer)
        self._pad.run_with_iobinding(io)
        return new

    def copy_row(self, buffer: DeviceArray, source: int, target: int, used: int) -> None:
        """See `Memory.copy_row`; copies the whole row, which lies in one piece."""
        size = buffer.nbytes // buffer.shape[0]
        self._copy(buffer.pointer + source * size, buffer.pointer + target * size, size)

    def swap_rows(self, buffer: DeviceArray, one: int, other: int, used: int) -> None:
        """See `Memory.swap_rows`; by way of a third row."""
        size = buffer.nbytes // buffer.shape[0]
        spare = self.array((size // 4,), np.float32)
        first, second = (buffer.pointer + place * size for place in (one, other))
        self._copy(first, spare.pointer, size)
        self._copy(second, first, size)
        self._copy(spare.pointer, second, size)

    def mirror(self, array: Array) -> DeviceMirror:
        """See `Memory.mirror`."""
        return DeviceMirror(array, self.array(array.shape, array.dtype.type))

    def result(self, shape: Sequence[int], dtype: type[np.generic]) -> DeviceArray:
        """See `Memory.result`."""
        return self.array(shape, dtype)

    def open(self, graph: bytes, *, capturing: bool = False) -> Any:
        """A session over a small graph on this device, all of it.

        capturing: whether runs with an id are captured and replayed, where that is wanted at all.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        if self.device != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = (self._capturing if capturing else None) or self._providers
        session = ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
        return session if self._home is None else self._home.bound(session)

    @cached_property
    def _spare(self) -> DeviceArray:
        return self.zeros((2,), np.float32)

    @cached_property
    def _identity(self) -> Any:
        ends = [Tensor(name, "float32", ("elements",)) for name in "xy"]
        return self.open(model_bytes("copy", [Node("Identity", ["x"], ["y"])], ends[:1], ends[1:]))

    @cached_property
    def _pad(self) -> Any:
        ends = [Tensor(name, "float32", ("slots", "heads", "capacity", "width")) for name in "xy"]
        pads = Tensor("pads", "int64", (8,))
        return self.open(model_bytes("grow", [Node("Pad", ["x", "pads"], ["y"])], [ends[0], pads], ends[1:]))

    def _copy(self, source: int, target: int, size: int, options: Any = None) -> None:
        """Copy `size` bytes, a multiple of 4, between two addresses of the device."""
        io = self._identity.io_binding()
        self._bind(io.bind_input, "x", (size // 4,), source)
        self._bind(io.bind_output, "y", (size // 4,), target)
        self._identity.run_with_iobinding(io, options)

    def _bind(self, bind: Any, name: str, shape: Sequence[int], pointer: int) -> None:
        bind(name, self.device, 0, np.float32, shape, pointer)

    @staticmethod
    def _halved(shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, ...]:
        """The shape of the same bytes read as float32; head_dim is a multiple of 16."""
        return (*shape[:-1], shape[-1] * dtype.itemsize // 4)


class DeviceMirror:
    """A host array and its copy on the device."""

    def __init__(self, array: npt.NDArray[Any], copy: DeviceArray) -> None:
        self._array, self.copy = array, copy
        self.pointer = copy.pointer
        self._held: npt.NDArray[Any] | None = None
        """What the copy holds, where that is known."""

    def upload(self) -> None:
        """See `Mirror.upload`. Nothing is copied where nothing changed."""
        if self._held is None or not np.array_equal(self._held, self._array):
            held = self._array.copy()  # of one moment, also where the array changes meanwhile
            self._held = None
            self.copy.upload(held)
            self._held = held

    def holds(self, content: npt.NDArray[Any] | None) -> None:
        """The device itself has written `content` there, or something unknown."""
        self._held = content
