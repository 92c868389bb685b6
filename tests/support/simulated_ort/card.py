"""The card: its memory, the allocators over it, what it counts, and the faults that a test may ask for."""

from __future__ import annotations

import bisect
import itertools
import math
import threading
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

FIRST_ADDRESS = 0x0D00_0000_0000_0000
"""Not canonical on x86-64, and beyond 48 bits elsewhere: no array is there, and a read is a fault."""

ROUNDING = 256
_FIRST_EXTENSION = 1 << 20
_LARGEST_DOUBLING = 1 << 30
_MOST_WASTE = 128 << 20


class CardError(RuntimeError):
    """What the card or ONNX Runtime answers."""


def illegal(what: str) -> CardError:
    """An access outside live memory, as CUDA reports it."""
    return CardError(
        "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access was encountered ; "
        f"GPU=0 ; ({what})"
    )


class Allocation:
    """Bytes behind one device address, on the host but reachable through the card only."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.address, self.nbytes = address, nbytes
        self.content = np.empty(nbytes + 64, dtype=np.uint8)
        skip = -self.content.ctypes.data % 64
        self.content = self.content[skip : skip + nbytes]
        self.live = True


class Arena:
    """ONNX Runtime's BFC arena as far as it decides what the card must give.

    Doubling (`kNextPowerOfTwo`, what Python's own OrtValues get) or exact (`kSameAsRequested`): as measured
    with the 1.31.1 provider over a stand-in for the CUDA runtime: 48 buffers of 16 MB took 1,024 MB
    of the first kind and 768 of the second. Regions stay the arena's until `shrink`.
    """

    def __init__(self, card: Card, *, doubling: bool) -> None:
        self._card, self._doubling = card, doubling
        self._next = _FIRST_EXTENSION
        self._regions: list[Counter[int]] = []
        self._free: list[list[int]] = []  # per region: sizes of free pieces
        self._sizes: list[int] = []
        self.reserved = 0

    def take(self, nbytes: int) -> tuple[int, int]:
        """(region, bytes) for a request; extends the arena where nothing fits."""
        size = max(ROUNDING, math.ceil(nbytes / ROUNDING) * ROUNDING)
        best = min(
            (
                (piece, region)
                for region, pieces in enumerate(self._free)
                for piece in pieces
                if piece >= size
            ),
            default=None,
        )
        region = self._extend(size) if best is None else best[1]
        pieces = self._free[region]
        piece = pieces.pop(bisect.bisect_left(pieces, size))
        if piece >= 2 * size or piece - size >= _MOST_WASTE:
            bisect.insort(pieces, piece - size)
        else:
            size = piece
        return region, size

    def give_back(self, region: int, size: int) -> None:
        """A piece is free again; neighbours are joined (as if all free pieces were)."""
        pieces = self._free[region]
        joined = size + sum(pieces) if self._doubling else size
        self._free[region] = [joined] if self._doubling else sorted([*pieces, size])
        if sum(self._free[region]) == self._sizes[region]:
            self._free[region] = [self._sizes[region]]

    def shrink(self) -> None:
        """Give back the regions that hold nothing."""
        for region, size in enumerate(self._sizes):
            if size and sum(self._free[region]) == size:
                self.reserved -= size
                self._free[region], self._sizes[region] = [], 0

    def close(self) -> None:
        """Give back everything: the session is gone."""
        self.reserved, self._free, self._sizes = 0, [[] for _ in self._free], [0 for _ in self._sizes]

    def _extend(self, size: int) -> int:
        wanted = size
        grown = False
        if self._doubling:
            while self._next < size:
                self._next *= 2
                grown = True
            wanted = max(size, min(self._next, self._card.available))
        if wanted > self._card.available:
            raise CardError(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception: bfc_arena.cc AllocateRawInternal "
                f"Failed to allocate memory for requested buffer of size {size}"
            )
        if self._doubling and not grown:
            self._next = min(self._next * 2, _LARGEST_DOUBLING)
        self.reserved += wanted
        self._card.peak = max(self._card.peak, self._card.reserved)
        self._free.append([wanted])
        self._sizes.append(wanted)
        return len(self._sizes) - 1


@dataclass
class Card:
    """One simulated card. `counts` names what the host did; a test resets it with `counts.clear()`.

    waits: the host waited for the card (`wait.run` at the end of a run, `wait.read` for a copy to the host).
    uploads: `upload` (OrtValue.update_inplace) and `upload.bind` (an input bound from the host).
    """

    limit: int = 15 << 30
    counts: Counter[str] = field(default_factory=Counter)
    unsupported_m: int | None = None
    """Rows from which MatMulNBits with `ep.cuda.fpa_intb_gemm` fails (onnxruntime#29691)."""
    astray: str | None = None
    """Operator whose nodes a profile shows on the CPU."""
    no_kernel_image: bool = False
    """As on a P100: the first kernel fails."""
    absent: bool = False
    """No usable card: sessions fall back to the CPU provider, whispering."""
    releases: bool = False
    """Whether `release_captured_graph` forgets; in 1.31.1's CUDA provider it does nothing."""
    capture_threads: bool = True
    """Whether a captured id that another thread runs is an error here (ONNX Runtime captures it anew)."""
    peak: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._addresses = itertools.count(FIRST_ADDRESS, 1 << 36)
        self._starts: list[int] = []
        self._allocations: list[Allocation] = []
        self._arenas: list[Arena] = []
        self.python_arena = self.arena(doubling=True)
        self.weights = 0
        """Bytes of the sessions' initializers."""

    def arena(self, *, doubling: bool) -> Arena:
        """A new allocator over this card."""
        arena = Arena(self, doubling=doubling)
        self._arenas.append(arena)
        return arena

    @property
    def reserved(self) -> int:
        """Bytes that the arenas hold, as nvidia-smi would show them."""
        return sum(arena.reserved for arena in self._arenas) + self.weights

    @property
    def available(self) -> int:
        """Bytes that an arena may still take."""
        return self.limit - self.reserved

    @property
    def used(self) -> int:
        """Bytes of live tensors."""
        return sum(a.nbytes for a in self._allocations if a.live)

    def reserve_weights(self, nbytes: int) -> None:
        """A session loads its weights."""
        if nbytes > self.available:
            raise CardError(f"Failed to allocate memory for requested buffer of size {nbytes}")
        self.weights += nbytes
        self.peak = max(self.peak, self.reserved)

    def allocate(self, arena: Arena, nbytes: int, dtype: np.dtype) -> tuple[Allocation, tuple[int, int]]:
        """New memory full of poison: NaN for floats, a large number for integers."""
        with self._lock:
            piece = arena.take(nbytes)
            allocation = Allocation(next(self._addresses), nbytes)
            allocation.content[:] = 0xFF if dtype.kind == "f" else 0x7F
            self._starts.append(allocation.address)
            self._allocations.append(allocation)
            return allocation, piece

    def free(self, arena: Arena, allocation: Allocation, piece: tuple[int, int]) -> None:
        """The tensor is gone; its address is never used again."""
        with self._lock:
            allocation.live = False
            allocation.content[:] = 0xFF
            arena.give_back(*piece)
            self._forget()

    def _forget(self) -> None:
        while len(self._starts) > 4096 and not self._allocations[0].live:
            del self._starts[0], self._allocations[0]

    def memory(self, address: int, nbytes: int, what: str) -> np.ndarray:
        """The bytes (nbytes,) at a device address; raises as the card would for any other."""
        with self._lock:
            index = bisect.bisect_right(self._starts, address) - 1
            allocation = self._allocations[index] if index >= 0 else None
            if allocation is None or address + nbytes > allocation.address + allocation.nbytes:
                kind = "a host address" if address < FIRST_ADDRESS else "outside an allocation"
                raise illegal(f"{what}: {kind}")
            if not allocation.live:
                raise illegal(f"{what}: freed memory")
            start = address - allocation.address
            return allocation.content[start : start + nbytes]
