"""Where a session's tensors lie: host memory, which NumPy sees, or a device's, which only ONNX Runtime does.

The engine, the KV caches and the bindings are written once over `Memory`. `DeviceMemory` runs on the CPU
provider too, which is how its code is tested where there is no GPU.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ptbr_slm.errors import SlmError

Array = npt.NDArray[Any]
Answer = TypeVar("Answer")

_SMALL_PAGES_FROM = 16 << 20
"""Bytes of one layer's keys or values: 16 slots of 1,024 tokens of an 85m."""

OUT_OF_MEMORY = ("llocat", "bad_alloc", "out of memory")
"""Parts of ORT's messages when memory runs out, the host's or the GPU's."""


@contextmanager
def run_errors() -> Iterator[None]:
    """Turn what ORT cannot do for want of memory (NumPy neither), or on this GPU, into an SlmError."""
    try:
        yield
    except Exception as error:  # ORT's exceptions share no base class but Exception
        if isinstance(error, MemoryError) or any(word in str(error) for word in OUT_OF_MEMORY):
            raise SlmError(
                "E_MEMORY",
                "a memória não foi suficiente para gerar.",
                hint="Use textos mais curtos ou menos textos de uma vez.",
            ) from error
        if "no kernel image" not in str(error):
            raise
        raise SlmError(
            "E_PROVIDER",
            "o onnxruntime-gpu não tem código para esta placa: precisa ser sm_75 ou mais nova (T4, RTX).",
            where="--device cuda",
            hint="No Kaggle, escolha a GPU T4 x2; ou exporte para CPU com --target cpu.",
        ) from error


class InputBuffer(Protocol):
    """A small host array that a session reads at one fixed address of its own memory."""

    pointer: int

    def upload(self) -> None:
        """Make the session see what the array holds now."""


class OutputBuffer(Protocol):
    """An output at a fixed address."""

    pointer: int

    def read(self) -> Array:
        """Its content on the host; overwritten by the next run, or a copy."""


class Buffer(Protocol):
    """Keys or values of all slots in one layer: (slots, num_kv_heads, capacity, head_dim)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As NumPy's."""

    @property
    def nbytes(self) -> int:
        """Its size."""


class Memory(Protocol):
    """Buffers (slots, heads, capacity, head_dim) for keys and values, and a step's inputs and outputs."""

    device: str
    """ONNX Runtime's name for it: `cpu`, `cuda`."""
    shared: bool
    """Whether the host and the session see the same bytes: nothing is uploaded then."""

    def zeros(self, shape: Sequence[int], dtype: type[np.generic]) -> Buffer:
        """A new `Buffer` of zeros. Only the memory that made it knows its type."""

    def pointer(self, buffer: Any) -> int:
        """The address of its first byte."""

    def grown(self, buffer: Any, slots: int, capacity: int, used: Sequence[int]) -> Buffer:
        """A larger buffer: of each slot the first `used` positions, at least, as they were; then zeros."""

    def copy_slot(self, buffer: Any, source: int, target: int, used: int) -> None:
        """Overwrite the first `used` positions of slot `target`, at least, with those of slot `source`."""

    def swap_slots(self, buffer: Any, one: int, other: int, used: tuple[int, int]) -> None:
        """Exchange two slots: of each the first positions, as many as `used` says of it, at least."""

    def trim(self) -> None:
        """Give back to the machine what earlier buffers have left behind."""

    def run(self, work: Callable[[], Answer]) -> Answer:
        """What `work` returns: several uploads and runs in their order, not between another thread's."""

    def input_buffer(self, array: Array) -> InputBuffer:
        """Let the session read `array`, whose address must not change."""

    def output_buffer(self, shape: Sequence[int], dtype: type[np.generic]) -> OutputBuffer:
        """A buffer for an output."""


class HostMemory:
    """NumPy arrays, which the CPU provider reads and writes in place."""

    device = "cpu"
    shared = True

    def zeros(self, shape: Sequence[int], dtype: type[np.generic]) -> Array:
        """See `Memory.zeros`."""
        return _lazy_zeros(shape, np.dtype(dtype))

    def pointer(self, buffer: Array) -> int:
        """See `Memory.pointer`."""
        return buffer.ctypes.data

    def grown(self, buffer: Array, slots: int, capacity: int, used: Sequence[int]) -> Array:
        """See `Memory.grown`; pages that nothing is written to stay unallocated."""
        _, heads, _, width = buffer.shape
        new = _lazy_zeros((slots, heads, capacity, width), buffer.dtype)
        for slot, length in enumerate(used):
            new[slot, :, :length] = buffer[slot, :, :length]
        return new

    def copy_slot(self, buffer: Array, source: int, target: int, used: int) -> None:
        """See `Memory.copy_slot`."""
        buffer[target, :, :used] = buffer[source, :, :used]

    def swap_slots(self, buffer: Array, one: int, other: int, used: tuple[int, int]) -> None:
        """See `Memory.swap_slots`; a short slot's pages behind its tokens stay unallocated."""
        here, there = used
        content = buffer[other, :, :there].copy()
        buffer[other, :, :here] = buffer[one, :, :here]
        buffer[one, :, :there] = content

    def trim(self) -> None:
        """See `Memory.trim`: NumPy has done so."""

    def run(self, work: Callable[[], Answer]) -> Answer:
        """See `Memory.run`: the caller's thread does everything."""
        return work()

    def input_buffer(self, array: Array) -> InputBuffer:
        """See `Memory.input_buffer`: the array itself."""
        return _HostArray(array)

    def output_buffer(self, shape: Sequence[int], dtype: type[np.generic]) -> OutputBuffer:
        """See `Memory.output_buffer`: an array that each run overwrites."""
        return _HostArray(np.empty(shape, dtype=dtype))


def _lazy_zeros(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Zeros whose pages take memory when they are first written; in large arrays each of 4 KiB for itself.

    NumPy asks Linux for huge pages (MADV_HUGEPAGE): one token in each of 32 slots for 4,096 then took the
    memory of all 4,096. They decode 6 % faster, though (85m int4, one text), so small arrays have them.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    if size < _SMALL_PAGES_FROM or not hasattr(mmap, "MADV_NOHUGEPAGE"):  # Linux's
        return np.zeros(shape, dtype=dtype)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size} bytes") from error
    with suppress(OSError):  # a kernel without huge pages
        pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype=dtype).reshape(shape)


class _HostArray:
    """An `InputBuffer` and an `OutputBuffer` that cost nothing."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.pointer = array.ctypes.data

    def upload(self) -> None:
        """Nothing to do."""

    def read(self) -> Array:
        """The array, not a copy."""
        return self._array
