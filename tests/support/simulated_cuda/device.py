"""A simulated card: its memory by the byte, copies that arrive late, and every wait of the host for it."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

BLOCK = 512
"""Bytes to which PyTorch's caching allocator rounds an allocation (c10/cuda/CUDACachingAllocator.cpp)."""
CONTEXT_BYTES = 600 << 20
"""What the driver takes of a card for a process."""
POISON = 0x7F
"""Uninitialised memory, and a host buffer whose copy has not arrived: a NaN in every floating-point type."""


@dataclass(frozen=True)
class Wait:
    """The host waited for the card."""

    why: str
    where: str
    """file.py:function of the innermost frame outside PyTorch and this harness."""


class Lease:
    """A tensor's share in a block of the card's memory; the block is free when its last lease is gone."""

    def __init__(self, card: Card, key: int) -> None:
        self._card, self._key = card, key

    def __del__(self) -> None:
        self._card.release(self._key)


@dataclass
class _Arrival:
    """A copy from the card that the host has asked for and not waited for."""

    target: torch.Tensor
    numbers: torch.Tensor


@dataclass
class _Departure:
    """A pinned buffer that the card may still be reading."""

    source: torch.Tensor
    numbers: torch.Tensor
    where: str


@dataclass
class Card:
    """One simulated GPU."""

    index: int
    """Of `cuda:N`."""
    name: str = "Tesla T4"
    capability: tuple[int, int] = (7, 5)
    total_bytes: int = int(14.56 * 2**30)
    taken_bytes: int = 0
    """Memory that another program holds."""
    shapes_only: bool = False
    """Whether tensors have shapes and bytes and no numbers (PyTorch's meta device): a step of an 800m then
    takes seconds, and its memory can be counted. What the host reads are ones."""
    waits: list[Wait] = field(default_factory=list)
    operators: Counter[tuple[str, tuple[str, ...]]] = field(default_factory=Counter)
    """(operator, dtypes of its tensors on the card) -> times."""
    allocated: int = 0
    peak: int = 0
    largest: int = 0
    """Most bytes ever allocated, which a caching allocator keeps reserved until `empty_cache`."""

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self._leases: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._arrivals: list[_Arrival] = []
        self._departures: list[_Departure] = []

    @property
    def device(self) -> torch.device:
        """Its name for PyTorch."""
        return torch.device("cuda", self.index)

    @property
    def backing(self) -> torch.device:
        """The device that holds its tensors."""
        return torch.device("meta" if self.shapes_only else "cpu")

    def from_host(self, source: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """A host tensor's numbers in new memory of the card."""
        if self.shapes_only:
            return torch.empty_like(source, dtype=dtype, device="meta")
        return source.detach().to(dtype, copy=True)

    def note(self, func: Any, tensors: list[Any]) -> None:
        """Count an operator and the types that it was given."""
        self.operators[str(func), tuple(sorted({str(t.dtype).removeprefix("torch.") for t in tensors}))] += 1

    # Memory

    def lease(self, host: torch.Tensor) -> Lease:
        """Account for the memory behind a tensor. Raises torch.OutOfMemoryError where it does not fit."""
        storage = host.untyped_storage()
        key = storage._cdata
        if key not in self._leases:
            size = -(-storage.nbytes() // BLOCK) * BLOCK
            free = self.total_bytes - self.taken_bytes - CONTEXT_BYTES - self.allocated
            if size > free:
                raise torch.OutOfMemoryError(
                    f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. GPU {self.index} has a "
                    f"total capacity of {self.total_bytes / 2**30:.2f} GiB of which {free / 2**20:.2f} MiB "
                    "is free."
                )
            self._leases[key], self._sizes[key] = 0, size
            self.allocated += size
            self.peak, self.largest = max(self.peak, self.allocated), max(self.largest, self.allocated)
        self._leases[key] += 1
        return Lease(self, key)

    def release(self, key: int) -> None:
        """One tensor less shares this block."""
        self._leases[key] -= 1
        if not self._leases[key]:
            del self._leases[key]
            self.allocated -= self._sizes.pop(key)

    # Copies

    def read_host(self, source: torch.Tensor, *, wait: bool) -> None:
        """Before a copy of a host tensor to the card.

        Without `wait` and from pinned memory the card reads it later: whoever changes it before the next wait
        sends something else. From pageable memory the driver takes a copy first, and with `wait` PyTorch
        synchronises the stream (aten/src/ATen/native/cuda/Copy.cu).
        """
        if wait:
            self.wait(f"copy of {tuple(source.shape)} from the host")
        elif is_pinned(source):
            self._departures.append(_Departure(source, source.detach().clone(), call_site()))

    def write_host(self, target: torch.Tensor, numbers: torch.Tensor, *, wait: bool) -> None:
        """A copy into a host tensor. Without `wait`, into pinned memory, it arrives at the next wait."""
        if wait or not is_pinned(target):
            self.wait(f"copy of {tuple(numbers.shape)} to the host")
            target.detach().fill_(1) if self.shapes_only else target.detach().copy_(numbers)
        else:
            poison(target)
            self._arrivals.append(_Arrival(target, numbers.detach().clone()))

    def wait(self, why: str) -> None:
        """The host waits until the card has done everything."""
        self.waits.append(Wait(why, call_site()))
        arrivals, self._arrivals = self._arrivals, []
        departures, self._departures = self._departures, []
        for arrival in arrivals:
            arrival.target.detach().copy_(arrival.numbers)
        for departure in departures:
            if not torch.equal(departure.source, departure.numbers):
                raise AssertionError(
                    f"{departure.where}: the host overwrote a pinned buffer that the card was still reading"
                )

    @contextmanager
    def counting_waits(self) -> Iterator[list[Wait]]:
        """The waits inside the block."""
        before, self.waits = self.waits, []
        try:
            yield self.waits
        finally:
            self.waits = before + self.waits


cards: list[Card] = []
"""The machine's cards; `simulated_cuda.machine` sets them."""


def restart(machine: list[Card]) -> None:
    """Make the cards of a machine what they were at its start, but for memory that is still in use."""
    for card in machine:
        card.waits.clear()
        card.operators.clear()
        card.total_bytes, card.taken_bytes = Card(card.index).total_bytes, 0
        card.peak = card.largest = card.allocated
        card.generator.manual_seed(0)


def pin(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a host tensor in pinned memory."""
    copied = tensor.detach().clone()
    copied._simulated_pinned = True  # type: ignore[attr-defined]
    return copied


def is_pinned(tensor: torch.Tensor) -> bool:
    """Whether `pin` made it."""
    return bool(getattr(tensor, "_simulated_pinned", False))


def poison(tensor: torch.Tensor) -> torch.Tensor:
    """Fill memory with values that a correct program never reads."""
    if tensor.numel():
        if tensor.is_floating_point():
            tensor.detach().fill_(float("nan"))
        elif tensor.dtype is not torch.bool:
            tensor.detach().fill_(POISON)
    return tensor


def call_site() -> str:
    """file.py:function of the innermost frame that is neither PyTorch's nor ours."""
    ours = Path(__file__).parent
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if "site-packages" not in path.parts and path.parent != ours and path.is_absolute():
            return f"{path.name}:{frame.name}"
    return "?"
