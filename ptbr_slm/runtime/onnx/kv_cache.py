"""Keys and values of all slots: one buffer per layer and side, grown by copying as texts get longer.

A slot is a caller's name for a row; a place is its index in the buffers. Rows that are decoded together must
lie side by side, since a binding covers one range of places: `gather` moves them there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.onnx.memory import HostMemory, Memory, run_errors
from ptbr_slm.runtime.slots import bucket

KEEP_BYTES = 64 << 20
"""Buffers up to this size are kept between texts; larger ones are freed when no slot is open."""


class KVCaches:
    """Slots and their memory.

    `allocation` changes with every reallocation: bindings are stale then. `version` changes with that and
    with every move of rows.
    """

    def __init__(
        self,
        config: ModelConfig,
        memory: Memory | None = None,
        dtype: type[np.generic] = np.float32,
        *,
        whole: bool = False,
        keep_bytes: int | None = None,
    ) -> None:
        """whole: whether the graph wants buffers for the whole context at once, however few the tokens.

        keep_bytes: instead of `KEEP_BYTES`.
        """
        self._keep_bytes = keep_bytes
        self._config = config
        self._smallest = config.max_seq_len if whole else 1  # tokens
        self._memory = memory or HostMemory()
        self.dtype = dtype
        self._freed: deque[int] = (
            deque()
        )  # `close` may come from any thread at any time: it only appends here
        self.version = self.allocation = 0
        self.limit = config.max_seq_len
        self._places: dict[int, int] = {}
        self.lengths: npt.NDArray[np.int32]  # (slots,) tokens in each place
        self.arrays: list[Any]  # the memory's buffers (slots, num_kv_heads, capacity, head_dim)
        self._allocate(1, self._bucket(1))

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(array.nbytes for array in self.arrays)

    def reset(self, rows: int, limit: int) -> None:
        """Forget everything; open the slots 0 to rows - 1."""
        self.limit = limit
        self._freed.clear()
        self._places = {}
        if rows > len(self.lengths) or self._oversized(rows):
            self._allocate(rows, self._bucket(1))
        for row in range(rows):
            self._place(row)

    def open(self) -> int:
        """A new empty slot."""
        self._collect()
        if not self._places and (not self.arrays or self._oversized(1)):
            self._allocate(1, self._bucket(1))
        row = next(row for row in range(len(self._places) + 1) if row not in self._places)
        if len(self._places) == len(self.lengths):
            self._reallocate(2 * len(self.lengths), self.capacity)
        self._place(row)
        return row

    def close(self, row: int) -> None:
        """Give a slot back (at the next `open`)."""
        self._freed.append(row)

    def release(self) -> None:
        """Free the memory; nothing can be opened afterwards."""
        self._places = {}
        self.arrays = []

    def place(self, row: int) -> int:
        """Index of a slot in the arrays."""
        return self._places[row]

    def truncate(self, row: int, length: int) -> None:
        """Forget a slot's tokens from `length` on: what lies behind a row's length is never read."""
        place = self._places[row]
        self.lengths[place] = min(length, self.lengths[place])

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """The first `length` tokens of `source` in place of those of `target`."""
        here, there = self._places[source], self._places[target]
        length = min(length, int(self.lengths[here]))
        for array in self.arrays:
            self._memory.copy_row(array, here, there, length)
        self.lengths[there] = length

    def gather(self, rows: Sequence[int]) -> tuple[int, list[int]]:
        """Make the slots `rows` neighbours: the first place, and each row's offset from it.

        Rows that already are stay where they are; others change places with whatever lies in the first
        ones. Copies one row's tokens each, about 5 MB for 256 tokens of an 85m.
        """
        places = [self._places[row] for row in rows]
        if max(places) - min(places) + 1 != len(rows):
            self._collect()
            wanted, used = set(range(len(rows))), set(places)
            for source, target in zip(sorted(used - wanted), sorted(wanted - used), strict=True):
                self._swap(source, target)
            places = [self._places[row] for row in rows]
        first = min(places)
        return first, [place - first for place in places]

    def ensure(self, tokens: int) -> None:
        """Grow so that every slot can hold `tokens`."""
        if tokens > self.capacity:
            self._reallocate(len(self.lengths), self._bucket(tokens))

    def _oversized(self, slots: int) -> bool:
        """Whether the buffers are large, and could be smaller."""
        keep = KEEP_BYTES if self._keep_bytes is None else self._keep_bytes
        return self.nbytes > keep and (len(self.lengths) > slots or self.capacity > self._bucket(1))

    def _bucket(self, tokens: int) -> int:
        return bucket(max(tokens, self._smallest), self._config.max_seq_len)

    def _collect(self) -> None:
        while self._freed:
            self._places.pop(self._freed.popleft(), None)

    def _place(self, row: int) -> None:
        taken = set(self._places.values())
        place = next(place for place in range(len(self.lengths)) if place not in taken)
        self._places[row] = place
        self.lengths[place] = 0

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
        used = int(self.lengths.max())
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
        """Exchange the contents of two places, and the slots that own them."""
        used = int(max(self.lengths[source], self.lengths[target]))
        for array in self.arrays:
            self._memory.swap_rows(array, target, source, used)
        self.lengths[[source, target]] = self.lengths[[target, source]]
        moved = {source: target, target: source}
        self._places = {row: moved.get(place, place) for row, place in self._places.items()}
        self.version += 1
