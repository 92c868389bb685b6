"""One IO binding over a range of places of the KV caches, made once and run many times.

Past and present are bound to the same memory, so a step writes its keys and values in place and copies
nothing. The small inputs are arrays whose content changes while their address stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.runtime.onnx.kv_cache import KVCaches
from ptbr_slm.runtime.types import Floats

Session = Any
"""An onnxruntime.InferenceSession; the package has no types."""


class Binding:
    """Binds the caches of `count` places from `first` on, and the inputs a subclass adds."""

    def __init__(self, session: Session, caches: KVCaches, first: int, count: int) -> None:
        self._session = session
        self._io = session.io_binding()
        self._total = np.zeros((), dtype=np.int32)
        self._input("total_sequence_length", self._total)
        for index, array in enumerate(caches.arrays):
            rows = array[first : first + count]  # (count, K, capacity, D), a view
            name = f"{index // 2}.{'value' if index % 2 else 'key'}"
            self._input(f"past_key_values.{name}", rows)
            self._output(f"present.{name}", rows)

    def _input(self, name: str, array: npt.NDArray[Any]) -> None:
        self._io.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _output(self, name: str, array: npt.NDArray[Any]) -> None:
        self._io.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


class DecodeBinding(Binding):
    """One token for each of `count` rows."""

    def __init__(self, session: Session, caches: KVCaches, first: int, count: int, vocab_size: int) -> None:
        super().__init__(session, caches, first, count)
        self.ids = np.zeros((count, 1), dtype=np.int64)
        # seqlens_k is the total minus 1, which is just what each row held before this token.
        self.lengths = caches.lengths[first : first + count]
        self._index = np.zeros((count, 1), dtype=np.int64)
        self._logits = np.empty((count, 1, vocab_size), dtype=np.float32)
        self._input("input_ids", self.ids)
        self._input("seqlens_k", self.lengths)
        self._input("logits_index", self._index)
        self._output("logits", self._logits)

    def run(self) -> Floats:
        """Feed `ids`; (count, V) logits in a buffer that the next run overwrites. Advances the lengths."""
        self._total[...] = self.lengths.max() + 1
        self._session.run_with_iobinding(self._io)
        self.lengths += 1
        return self._logits[:, 0]


class PrefillBinding(Binding):
    """Any number of tokens for the row at one place."""

    def __init__(self, session: Session, caches: KVCaches, place: int) -> None:
        super().__init__(session, caches, place, 1)
        self._length = caches.lengths[place : place + 1]
        self._seqlens = np.zeros(1, dtype=np.int32)
        self._input("seqlens_k", self._seqlens)

    def run(self, tokens: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], logits: Floats) -> None:
        """Append tokens (S,); the logits at the positions `wanted` (K,) of the chunk go to logits (K, V)."""
        self._input("input_ids", tokens[None])
        self._input("logits_index", wanted[None])
        self._output("logits", logits[None])
        self._total[...] = self._length[0] + len(tokens)
        self._seqlens[0] = self._total - 1
        self._session.run_with_iobinding(self._io)
        self._length += len(tokens)
