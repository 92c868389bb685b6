"""The IO bindings of the std graph (see `ptbr_slm_export.graphs.std`), over host or device memory.

As in `binding`, past and present are one buffer. A provider with shape profiles takes so many rows a call at
most: a larger batch is run in parts, over neighbouring ranges of the same arrays, so that no shape leaves a
profile and makes TensorRT build its engine anew.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptbr_slm.runtime.onnx.binding import Binding, Step
from ptbr_slm.runtime.onnx.kv_cache import KVCaches
from ptbr_slm.runtime.onnx.opened import Opened
from ptbr_slm.runtime.types import Floats

_INT64_BYTES = 8


class StdDecodeBinding(Step):
    """One token for each of `count` rows."""

    def __init__(self, opened: Opened, caches: KVCaches, first: int, count: int, vocab_size: int) -> None:
        memory = self._memory = opened.memory
        buffers = opened.step_buffers(count, vocab_size)
        self.ids, self._ids, self.logits = buffers.ids, buffers.ids_mirror, buffers.logits
        self._index_mirror = buffers.index_mirror
        self.lengths = caches.lengths[first : first + count]
        # A new token's position is where it is written: one array, read as (count, 1) and as (count,).
        self._positions = np.zeros((count, 1), dtype=np.int64)
        self._positions_mirror = memory.mirror(self._positions)
        size = opened.profile.max_rows if opened.profile else count
        self._parts = [
            self._part(opened, caches, first, start, min(size, count - start), vocab_size)
            for start in range(0, count, size)
        ]

    def _launch(self) -> None:
        self._positions[:, 0] = self.lengths
        self._positions_mirror.upload()
        self._ids.upload()
        for part in self._parts:
            part.step()

    def release(self) -> None:
        """Forget what the provider captured of this binding."""
        for part in self._parts:
            part.release()

    def _part(
        self, opened: Opened, caches: KVCaches, first: int, start: int, rows: int, vocab_size: int
    ) -> _DecodePart:
        """Rows `start` to `start + rows` of the batch, which lies at the places from `first` on."""
        part = _DecodePart(opened, caches, first + start, rows)
        skipped = start * _INT64_BYTES
        part.read("input_ids", (rows, 1), self._ids.pointer + skipped)
        part.read("position_ids", (rows, 1), self._positions_mirror.pointer + skipped)
        part.read("write_indices", (rows,), self._positions_mirror.pointer + skipped)
        part.read("logits_index", (rows, 1), self._index_mirror.pointer + skipped)
        part.write_logits((rows, 1, vocab_size), self.logits.pointer + start * vocab_size * 4)
        return part


class _DecodePart(Binding):
    """As many rows of a step as one call may have."""

    def __init__(self, opened: Opened, caches: KVCaches, first: int, rows: int) -> None:
        if opened.profile is not None:
            opened.profile.require(rows, 1, 1)
        super().__init__(opened, caches, first, rows)
        self._options, self._graph = opened.captured_run()

    def read(self, name: str, shape: tuple[int, ...], pointer: int) -> None:
        """Bind an int64 input at an address of the session's memory."""
        self._io.bind_input(name, self._memory.device, 0, np.int64, shape, pointer)

    def write_logits(self, shape: tuple[int, ...], pointer: int) -> None:
        """Bind the logits likewise."""
        self._io.bind_output("logits", self._memory.device, 0, np.float32, shape, pointer)

    def step(self) -> None:
        """Run these rows."""
        self._session.run_with_iobinding(self._io, self._options)

    def release(self) -> None:
        """Forget what the provider captured."""
        self._opened.release(self._graph)


class StdPrefillBinding(Binding):
    """Any number of tokens, up to a prefill chunk, for the row at one place."""

    def __init__(self, opened: Opened, caches: KVCaches, place: int) -> None:
        super().__init__(opened.prefill or opened, caches, place, 1)
        self._length = caches.lengths[place : place + 1]
        self._options = self._opened.free_run()

    def run(self, tokens: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], logits: Floats) -> None:
        """Append tokens (S,); the logits at the positions `wanted` (K,) of the chunk go to logits (K, V)."""
        if self._opened.profile is not None:
            self._opened.profile.require(1, len(tokens), len(wanted))
        start = self._length.astype(np.int64)  # (1,)
        positions = start[:, None] + np.arange(len(tokens))  # (1, S)
        self._input("input_ids", tokens[None])
        self._input("position_ids", positions)
        self._input("write_indices", start)
        self._input("logits_index", wanted[None])
        self._output("logits", logits[None])
        self._run_on_copies(self._options)
        self._length += len(tokens)
