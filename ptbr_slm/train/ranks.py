"""Who trains together: this process's place among the ranks, and the few words that they exchange.

A run's course does not depend on the number of ranks: an optimizer step takes `batch_size * grad_accum` sequences
in all, and each rank computes its share of them. Only `Ranks.main` writes files or speaks to the listener; what
depends on files, clocks or signals is decided there and told to all (`from_main`), or put to the vote (`any`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ptbr_slm.errors import SlmError
from ptbr_slm.train.config import TrainConfig

T = TypeVar("T")

DATA_TIMEOUT = timedelta(minutes=30)
"""For gradients and losses: no rank is ever further behind than a step, an evaluation or a sample."""
CONTROL_TIMEOUT = timedelta(days=7)
"""For words between the ranks: the others wait with one while the main rank prepares data or writes a checkpoint.
A rank that dies ends the wait at once, since its connections close."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process of `world`; with a world of 1 nothing here communicates."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Place on this machine: the index of its GPU."""
    control: Any = None
    """The gloo group for words (a torch ProcessGroup); tensors go through the default group."""

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This rank's part of `count` sequences: contiguous, as even as can be, in the order of the ranks."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    # Tensors, on the device they are on.

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over the ranks, in place; the same bits on each of them. On CUDA the host does not wait."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def broadcast_(self, tensor: Tensor, source: int) -> Tensor:
        """Overwrite `tensor` on every rank with that of rank `source`."""
        if self.world > 1:
            dist.broadcast(tensor, src=source)
        return tensor

    # Words, on the CPU: they never wait for the device.

    def exchange(self, words: Sequence[float]) -> list[list[float]]:
        """Every rank's `words` (as many on each), in the order of the ranks."""
        if self.world == 1:
            return [list(words)]
        mine = torch.tensor(words, dtype=torch.float64)
        theirs = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(theirs, mine, group=self.control)
        return [tensor.tolist() for tensor in theirs]

    def total(self, count: int) -> int:
        """The sum of a count over the ranks."""
        return int(sum(words[0] for words in self.exchange([count]))) if self.world > 1 else count

    def any(self, flag: bool) -> bool:
        """Whether any rank raises its flag; all get the same answer."""
        return any(words[0] for words in self.exchange([flag])) if self.world > 1 else flag

    def barrier(self) -> None:
        """Wait for all."""
        self.exchange([0])

    def from_main(self, decide: Callable[[], T]) -> T:
        """What `decide` returns on the main rank, on every rank; what it raises there is raised on all of them.

        Only the main rank calls it; the value travels pickled, so it is small and made of plain data.
        """
        if self.world == 1:
            return decide()
        said: list[Any] = [None, None]
        if self.main:
            try:
                said[0] = decide()
            except BaseException as error:
                self._tell([None, error])
                raise
        self._tell(said)
        if said[1] is not None:
            raise said[1]
        value: T = said[0]
        return value

    def main_first(self, work: Callable[[], T]) -> T:
        """Every rank's own `work()`, begun by the others when the main rank's is done: they find its files."""
        value: list[T] = []
        self.from_main(lambda: value.append(work()))
        return value[0] if self.main else work()

    def _tell(self, said: list[Any]) -> None:
        """Overwrite `said` on all with the main rank's."""
        dist.broadcast_object_list(said, src=0, group=self.control)


ALONE = Ranks()


def check_shares(config: TrainConfig, ranks: Ranks) -> None:
    """Refuse a step that leaves a rank without a sequence. Raises E_CONFIG."""
    if ranks.world > 1 and config.step_sequences < ranks.world:
        raise SlmError(
            "E_CONFIG",
            f"um passo de {config.step_sequences} sequência(s) não se reparte entre {ranks.world} processos.",
            where=f"--batch-size {config.batch_size} --grad-accum {config.grad_accum}",
            hint=f"Use --grad-accum {-(-ranks.world // config.batch_size)} ou maior, ou treine num só processo "
            "com --parallel none.",
        )


def started_by_agent() -> bool:
    """Whether torchrun (or our own launcher) started this process as one of several ranks."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextmanager
def join_ranks(device: str = "auto") -> Iterator[Ranks]:
    """Meet the other ranks that torchrun's environment names; ALONE where it names none.

    device: auto, cpu or cuda, as in TrainConfig. On CUDA tensors go through NCCL, words through gloo; on the
    CPU both through gloo. The groups are closed at the end, so that whoever still waits for this rank fails at
    once instead of waiting.
    """
    if not started_by_agent():
        yield ALONE
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=DATA_TIMEOUT)
    try:
        control = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
        yield Ranks(rank, world, local_rank, control)
    finally:
        dist.destroy_process_group()
