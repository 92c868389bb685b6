"""Buffers in a device's memory, allocated, moved and grown by ONNX Runtime itself: no CUDA binding is needed.

A copy is a graph of one node, Identity or Pad, run over raw addresses. Copies are rare (a capacity bucket is
left, slots are moved together), so their bindings are made when they are needed.

Buffers come from the allocator of the copies' own session, whose options say how it grows. An `OrtValue` made
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

from ptbr_slm.runtime.engines.onnx.providers.memory import OUT_OF_MEMORY, Answer, Array
from ptbr_slm.runtime.engines.onnx.providers.onnx_writer import Node, Tensor, model_bytes
from ptbr_slm.runtime.engines.onnx.providers.session import RunOptions, Session
from ptbr_slm.runtime.engines.onnx.providers.worker_thread import WorkerThread, new_ortvalue

Providers = Sequence[str | tuple[str, dict[str, str]]]

_SHRINK = "memory.enable_memory_arena_shrinkage"
"""Run option: when the run is over, the session's allocator gives back what nothing lies in."""


class DeviceArray:
    """A tensor in the device's memory, with the facts that the host may know."""

    def __init__(
        self, shape: Sequence[int], dtype: type[np.generic], device: str, session: Session | None = None
    ) -> None:
        """session: whose allocator it comes from, instead of Python's own."""
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        self.value = new_ortvalue(session, shape, dtype, device)
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
        worker: WorkerThread | None = None,
        capturing: Providers | None = None,
    ) -> None:
        """device: ONNX Runtime's name (`cuda`); providers: those of the model's session, without captures;
        worker: the thread for all runs, where there is one; capturing: providers with captures, if wanted.
        """
        self.device = device
        self._providers, self._worker = list(providers), worker
        self._capturing = None if capturing is None else list(capturing)

    @property
    def captures(self) -> bool:
        """Whether `open` makes sessions that may capture runs."""
        return self._capturing is not None

    def run(self, work: Callable[[], Answer]) -> Answer:
        """See `Memory.run`: one change of threads."""
        return work() if self._worker is None else self._worker.run(work)

    def array(self, shape: Sequence[int], dtype: type[np.generic]) -> DeviceArray:
        """A new array of whatever was there before. What copies left behind is freed first, if need be."""
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

    def grown(self, buffer: DeviceArray, slots: int, capacity: int, used: Sequence[int]) -> DeviceArray:
        """See `Memory.grown`; copies whole slots, not only what is used."""
        count, heads, old, width = buffer.shape
        new = self.array((slots, heads, capacity, width), buffer.dtype.type)
        pads = np.array([0, 0, 0, 0, slots - count, 0, capacity - old, 0], dtype=np.int64)
        io = self._pad.io_binding()
        io.bind_input("pads", "cpu", 0, np.int64, pads.shape, pads.ctypes.data)
        # Two fp16 or one fp32: Pad only moves bits, and the CPU provider has no fp16 kernel for it.
        self._bind(io.bind_input, "x", self._halved(buffer.shape, buffer.dtype), buffer.pointer)
        self._bind(io.bind_output, "y", self._halved(new.shape, new.dtype), new.pointer)
        self._pad.run_with_iobinding(io)
        return new

    def copy_slot(self, buffer: DeviceArray, source: int, target: int, used: int) -> None:
        """See `Memory.copy_slot`; copies the whole slot, which lies in one piece."""
        size = buffer.nbytes // buffer.shape[0]
        self._copy(buffer.pointer + source * size, buffer.pointer + target * size, size)

    def swap_slots(self, buffer: DeviceArray, one: int, other: int, used: tuple[int, int]) -> None:
        """See `Memory.swap_slots`; by way of a third buffer."""
        size = buffer.nbytes // buffer.shape[0]
        spare = self.array((size // 4,), np.float32)
        first, second = (buffer.pointer + index * size for index in (one, other))
        self._copy(first, spare.pointer, size)
        self._copy(second, first, size)
        self._copy(spare.pointer, second, size)

    def input_buffer(self, array: Array) -> DeviceInput:
        """See `Memory.input_buffer`."""
        return DeviceInput(array, self.array(array.shape, array.dtype.type))

    def output_buffer(self, shape: Sequence[int], dtype: type[np.generic]) -> DeviceArray:
        """See `Memory.output_buffer`."""
        return self.array(shape, dtype)

    def open(self, graph: bytes, *, capturing: bool = False) -> Session:
        """A session over a small graph on this device, all of it.

        capturing: whether runs with an id are captured and replayed, where that is wanted at all.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        if self.device != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers = (self._capturing if capturing else None) or self._providers
        session: Session = ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
        return session if self._worker is None else self._worker.wrap(session)

    @cached_property
    def _spare(self) -> DeviceArray:
        return self.zeros((2,), np.float32)

    @cached_property
    def _identity(self) -> Session:
        ends = [Tensor(name, "float32", ("elements",)) for name in "xy"]
        return self.open(model_bytes("copy", [Node("Identity", ["x"], ["y"])], ends[:1], ends[1:]))

    @cached_property
    def _pad(self) -> Session:
        ends = [Tensor(name, "float32", ("slots", "heads", "capacity", "width")) for name in "xy"]
        pads = Tensor("pads", "int64", (8,))
        return self.open(model_bytes("grow", [Node("Pad", ["x", "pads"], ["y"])], [ends[0], pads], ends[1:]))

    def _copy(self, source: int, target: int, size: int, options: RunOptions | None = None) -> None:
        """Copy `size` bytes, a multiple of 4, between two addresses of the device."""
        io = self._identity.io_binding()
        self._bind(io.bind_input, "x", (size // 4,), source)
        self._bind(io.bind_output, "y", (size // 4,), target)
        self._identity.run_with_iobinding(io, options)

    def _bind(self, bind: Callable[..., None], name: str, shape: Sequence[int], pointer: int) -> None:
        bind(name, self.device, 0, np.float32, shape, pointer)

    @staticmethod
    def _halved(shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, ...]:
        """The shape of the same bytes read as float32; head_dim is a multiple of 16."""
        return (*shape[:-1], shape[-1] * dtype.itemsize // 4)


class DeviceInput:
    """A host array and its copy on the device: an `InputBuffer`."""

    def __init__(self, array: npt.NDArray[Any], copy: DeviceArray) -> None:
        self._array, self.copy = array, copy
        self.pointer = copy.pointer
        self._uploaded: npt.NDArray[Any] | None = None
        """Content of the copy, where that is known."""

    def upload(self) -> None:
        """See `InputBuffer.upload`. Nothing is copied where nothing changed."""
        if self._uploaded is None or not np.array_equal(self._uploaded, self._array):
            content = self._array.copy()  # of one moment, also where the array changes meanwhile
            self._uploaded = None
            self.copy.upload(content)
            self._uploaded = content

    def set_content(self, content: npt.NDArray[Any] | None) -> None:
        """Note that the device itself has written `content` there; None for something unknown."""
        self._uploaded = content
