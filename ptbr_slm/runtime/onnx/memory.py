"""Where a session's tensors lie: host memory, which NumPy sees, or a device's, which only ONNX Runtime does.

The engine, the KV caches and the bindings are written once over `Memory`. `DeviceMemory` runs on the CPU
provider too, which is how its code is tested where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ptbr_slm.errors import SlmError

Array = npt.NDArray[Any]
Found = TypeVar("Found")

OUT_OF_MEMORY = ("llocat", "bad_alloc", "out of memory")
"""What ORT's messages say when memory runs out, the host's or the card's."""


@contextmanager
def run_errors() -> Iterator[None]:
    """What ORT cannot do for want of memory (NumPy neither), or on this card, in our own words."""
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


class Mirror(Protocol):
    """A small host array that a session reads at one fixed address of its own memory."""

    pointer: int

    def upload(self) -> None:
        """Make the session see what the array holds now."""


class Result(Protocol):
    """An output at a fixed address."""

    pointer: int

    def read(self) -> Array:
        """Its content on the host; overwritten by the next run, or a copy."""


class Memory(Protocol):
    """Buffers (slots, heads, capacity, head_dim) for keys and values, and a step's inputs and outputs."""

    device: str
    """ONNX Runtime's name for it: `cpu`, `cuda`."""
    shared: bool
    """Whether the host and the session see the same bytes: nothing is uploaded then."""

    def zeros(self, shape: Sequence[int], dtype: type[np.generic]) -> Any:
        """A new buffer of zeros, with `shape`, `nbytes` and `dtype`."""

    def pointer(self, buffer: Any) -> int:
        """The address of its first byte."""

    def grown(self, buffer: Any, slots: int, capacity: int, used: int) -> Any:
        """A larger buffer: the first `used` positions of every row as they were, zeros behind them."""

    def copy_row(self, buffer: Any, source: int, target: int, used: int) -> None:
        """Overwrite the first `used` positions of row `target`, at least, with those of row `source`."""

    def swap_rows(self, buffer: Any, one: int, other: int, used: int) -> None:
        """Exchange the first `used` positions of two rows, at least."""

    def trim(self) -> None:
        """Give back to the machine what earlier buffers have left behind."""

    def together(self, work: Callable[[], Found]) -> Found:
        """What `work` returns: several uploads and runs in their order, not between another thread's."""

    def mirror(self, array: Array) -> Mirror:
        """Let the session read `array`, which must stay where it is."""

    def result(self, shape: Sequence[int], dtype: type[np.generic]) -> Result:
        """Room for an output."""


class HostMemory:
    """NumPy arrays, which the CPU provider reads and writes in place."""

    device = "cpu"
    shared = True

    def zeros(self, shape: Sequence[int], dtype: type[np.generic]) -> Array:
        """See `Memory.zeros`."""
        return np.zeros(shape, dtype=dtype)

    def pointer(self, buffer: Array) -> int:
        """See `Memory.pointer`."""
        return buffer.ctypes.data

    def grown(self, buffer: Array, slots: int, capacity: int, used: int) -> Array:
        """See `Memory.grown`; pages that nothing is written to stay unallocated."""
        rows, heads, _, width = buffer.shape
        new = np.zeros((slots, heads, capacity, width), dtype=buffer.dtype)
        new[:rows, :, :used] = buffer[:, :, :used]
        return new

    def copy_row(self, buffer: Array, source: int, target: int, used: int) -> None:
        """See `Memory.copy_row`."""
        buffer[target, :, :used] = buffer[source, :, :used]

    def swap_rows(self, buffer: Array, one: int, other: int, used: int) -> None:
        """See `Memory.swap_rows`."""
        kept = buffer[other, :, :used].copy()
        buffer[other, :, :used] = buffer[one, :, :used]
        buffer[one, :, :used] = kept

    def trim(self) -> None:
        """See `Memory.trim`: NumPy has done so."""

    def together(self, work: Callable[[], Found]) -> Found:
        """See `Memory.together`: the caller's thread does everything."""
        return work()

    def mirror(self, array: Array) -> Mirror:
        """See `Memory.mirror`: the array itself."""
        return _HostArray(array)

    def result(self, shape: Sequence[int], dtype: type[np.generic]) -> Result:
        """See `Memory.result`: an array that each run overwrites."""
        return _HostArray(np.empty(shape, dtype=dtype))


class _HostArray:
    """A `Mirror` and a `Result` that cost nothing."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.pointer = array.ctypes.data

    def upload(self) -> None:
        """Nothing to do."""

    def read(self) -> Array:
        """The array, not a copy."""
        return self._array
