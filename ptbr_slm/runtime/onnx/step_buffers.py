"""What a decode step of so many rows reads and leaves, wherever its rows lie in the KV caches.

One step runs at a time, so all ranges of as many rows share these: with logits of their own (128 KB a row)
the ranges of up to 16 of 32 places would take 383 MB. They outlive the caches' buffers, and so does what was
captured over them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptbr_slm.runtime.onnx.memory import Memory, Mirror, Result


class StepBuffers:
    """Of `count` rows."""

    def __init__(self, memory: Memory, count: int, vocab_size: int) -> None:
        self.ids: npt.NDArray[np.int64] = np.zeros((count, 1), dtype=np.int64)
        """(count, 1), what is fed."""
        self.ids_mirror: Mirror = memory.mirror(self.ids)
        self._index = np.zeros((count, 1), dtype=np.int64)
        self.index_mirror: Mirror = memory.mirror(self._index)
        """(count, 1), the position in the step whose logits are asked for: the first."""
        self.index_mirror.upload()
        self.logits: Result = memory.result((count, 1, vocab_size), np.float32)
