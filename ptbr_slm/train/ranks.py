"""Who trains together: this process's place among the ranks, and the few words that they exchange.

A run's course does not depend on the number of ranks: an optimizer step takes `batch_size * grad_accum` sequences
in all, and each rank computes its share of them. Only `Ranks.main` writes files or speaks to the listener.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process of `world`; with a world of 1 nothing here communicates."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Place on this machine: the index of its GPU."""

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This rank's part of `count` sequences: contiguous, as even as can be, in the order of the ranks."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place; the same bits on each of them."""
        assert self.world == 1
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether any rank raises its flag; all get the same answer."""
        assert self.world == 1
        return flag

    def barrier(self) -> None:
        """Wait for all."""
        assert self.world == 1


ALONE = Ranks()
