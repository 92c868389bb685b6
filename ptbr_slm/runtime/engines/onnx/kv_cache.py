"""Keys and values of all slots: one buffer per layer and side, grown by copying as texts get longer.

A slot is a caller's number; its index is where it lies in the buffers. Slots that are decoded together must
be neighbours there, since a binding covers one range of indices: `gather` moves them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.engines.onnx.providers.memory import Buffer, HostMemory, Memory, run_errors
from ptbr_slm.runtime.protocol import bucket

IDLE_BYTES = 64 << 20
"""Buffers up to this size stay allocated between texts; larger ones are freed when no slot is open."""


class KVCaches:
    """Slots and their memory.

    `allocation` changes with every reallocation: bindings are stale then. `version` changes with that and
    with every move of a slot.
    """

    def __init__(
        self,
        config: ModelConfig,
        memory: Memory | None = None,
        dtype: type[np.generic] = np.float32,
        *,
        full_context: bool = False,
        idle_bytes: int | None = None,
    ) -> None:
        """full_context: whether the graph wants buffers for the whole context, however few the tokens.

        idle_bytes: instead of `IDLE_BYTES`.
        """
        self._idle_bytes = idle_bytes
        self._config = config
        self._smallest = config.max_seq_len if full_context else 1  # tokens
        self._memory: Memory = memory or HostMemory()
        self.dtype = dtype
        # `close` may come from any thread at any time: it only appends here.
        self._freed: deque[int] = deque()
        self.version = self.allocation = 0
        self.limit = config.max_seq_len
        self._indices: dict[int, int] = {}
        self.lengths: npt.NDArray[np.int32]  # (slots,) tokens at each index
        self.arrays: list[Buffer]
        self._allocate(1, self._bucket(1))

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(array.nbytes for array in self.arrays)

    def reset(self, slots: int, limit: int) -> None:
        """Forget everything; open the slots 0 to slots - 1."""
        self.limit = limit
        self._freed.clear()
        self._indices = {}
        if slots > len(self.lengths) or self._oversized(slots):
            self._allocate(slots, self._bucket(1))
        for slot in range(slots):
            self._add(slot)

    def open(self) -> int:
        """A new empty slot."""
        self._collect()
        if not self._indices and (not self.arrays or self._oversized(1)):
            self._allocate(1, self._bucket(1))
        slot = next(slot for slot in range(len(self._indices) + 1) if slot not in self._indices)
        if len(self._indices) == len(self.lengths):
            self._reallocate(2 * len(self.lengths), self.capacity)
        self._add(slot)
        return slot

    def close(self, slot: int) -> None:
        """Give a slot back (at the next `open`)."""
        self._freed.append(slot)

    def release(self) -> None:
        """Free the memory; nothing can be opened afterwards."""
        self._indices = {}
        self.arrays = []

    def index(self, slot: int) -> int:
        """Where a slot lies in the arrays."""
        return self._indices[slot]

    def truncate(self, slot: int, length: int) -> None:
        """Forget a slot's tokens from `length` on: what lies behind its length is never read."""
        index = self._indices[slot]
        self.lengths[index] = min(length, self.lengths[index])

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """The first `length` tokens of `source` in place of those of `target`."""
        here, there = self._indices[source], self._indices[target]
        length = min(length, int(self.lengths[here]))
        for array in self.arrays:
            self._memory.copy_slot(array, here, there, length)
        self.lengths[there] = length

    def gather(self, slots: Sequence[int]) -> tuple[int, list[int]]:
        """Make `slots` neighbours: the first index, and each slot's offset from it.

        Slots that already are neighbours stay where they are; others are swapped with whatever lies at the
        first indices. Copies one slot's tokens each, about 5 MB for 256 tokens of an 85m.
        """
        indices = [self._indices[slot] for slot in slots]
        if max(indices) - min(indices) + 1 != len(slots):
            self._collect()
            wanted, used = set(range(len(slots))), set(indices)
            for source, target in zip(sorted(used - wanted), sorted(wanted - used), strict=True):
                self._swap(source, target)
            indices = [self._indices[slot] for slot in slots]
        first = min(indices)
        return first, [index - first for index in indices]

    def ensure(self, tokens: int) -> None:
        """Grow so that every slot can hold `tokens`."""
        if tokens > self.capacity:
            self._reallocate(len(self.lengths), self._bucket(tokens))

    def _oversized(self, slots: int) -> bool:
        """Whether the buffers are large, and could be smaller."""
        limit = IDLE_BYTES if self._idle_bytes is None else self._idle_bytes
        return self.nbytes > limit and (len(self.lengths) > slots or self.capacity > self._bucket(1))

    def _bucket(self, tokens: int) -> int:
        return bucket(max(tokens, self._smallest), self._config.max_seq_len)

    def _collect(self) -> None:
        while self._freed:
            self._indices.pop(self._freed.popleft(), None)

    def _add(self, slot: int) -> None:
        taken = set(self._indices.values())
        index = next(index for index in range(len(self.lengths)) if index not in taken)
        self._indices[slot] = index
        self.lengths[index] = 0

    def _allocate(self, slots: int, capacity: int) -> None:
        config = self._config
        shape = (slots, config.num_kv_heads, capacity, config.head_dim)
        self._changed()
        self.arrays = []  # the old ones go before the new ones come
        self.lengths, self.capacity = np.zeros(0, dtype=np.int32), 0
        with run_errors():
            self._memory.trim()
            self.arrays = [self._memory.zeros(shape, self.dtype) for _ in range(2 * config.num_layers)]
        self.lengths, self.capacity = np.zeros(slots, dtype=np.int32), capacity

    def _reallocate(self, slots: int, capacity: int) -> None:
        """Larger arrays with the same content, one at a time: at most one array is there twice."""
        used = self.lengths.tolist()
        self._changed()  # also where memory ends half-way: no binding may keep the address of a freed buffer
        with run_errors():
            for index in range(len(self.arrays)):
                self.arrays[index] = self._memory.grown(self.arrays[index], slots, capacity, used)
                self._memory.trim()
        lengths = np.zeros(slots, dtype=np.int32)
        lengths[: len(self.lengths)] = self.lengths
        self.lengths, self.capacity = lengths, capacity

    def _changed(self) -> None:
        """The buffers are others from now on."""
        self.version += 1
        self.allocation += 1

    def _swap(self, source: int, target: int) -> None:
        """Exchange the contents of two indices, and the slots that own them."""
        used = (int(self.lengths[target]), int(self.lengths[source]))
        for array in self.arrays:
            self._memory.swap_slots(array, target, source, used)
        self.lengths[[source, target]] = self.lengths[[target, source]]
        moved = {source: target, target: source}
        self._indices = {slot: moved.get(index, index) for slot, index in self._indices.items()}
        self.version += 1
