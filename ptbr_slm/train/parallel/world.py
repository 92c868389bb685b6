"""Who trains together: this process's place among the ranks, and the few words that they exchange.

A run's course does not depend on the number of ranks: an optimizer step takes `batch_size * grad_accum`
sequences in all, and each rank computes its share of them. Only `Ranks.main` writes files or speaks to the
listener; what depends on files, clocks or signals is decided there and told to all (`from_main`), or put to
the vote (`any`).
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from ptbr_slm.errors import SlmError
from ptbr_slm.train.config import TrainConfig

T = TypeVar("T")

DATA_TIMEOUT = timedelta(minutes=30)
"""For gradients and losses: no rank is ever further behind than a step, an evaluation or a sample."""
WORD_TIMEOUT = timedelta(seconds=60)
"""For the store in which a rank leaves why it went."""
CONTROL_TIMEOUT = timedelta(days=7)
"""For words between the ranks: the others wait with one while the main rank prepares data or writes a
checkpoint. A rank that dies ends the wait at once, since its connections close."""


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
        """What `decide` returns on the main rank, on every rank; what it raises there is raised on all of
        them.

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
        """Every rank's own `work()`, begun by the others when the main rank's is done: they find its
        files.
        """
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
            hint=f"Use --grad-accum {-(-ranks.world // config.batch_size)} ou maior, ou treine num só "
            "processo com --parallel none.",
        )


class Lost(Exception):
    """This rank and the others have lost each other: only starting all of them again can help."""


def started_by_agent() -> bool:
    """Whether torchrun (or our own launcher) started this process as one of several ranks."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def visible_cards() -> int:
    """GPUs that PyTorch can use here; 0 where there is none or it cannot use them.

    Without PyTorch's own warning about a driver that is too old: the plan says it, in our words.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.cuda.device_count() if torch.cuda.is_available() else 0


def local_rank() -> int:
    """This process's place on this machine, the index of its GPU; 0 where nobody started several."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def restarts() -> int:
    """Times that the agent has started all ranks again because one died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def join_ranks(device: str = "auto") -> Iterator[Ranks]:
    """Meet the other ranks that torchrun's environment names; ALONE where it names none.

    device: auto, cpu or cuda, as in TrainConfig. On CUDA tensors go through NCCL, words through gloo; on the
    CPU both through gloo. An exception of one rank becomes the exception of all: it is left in the agent's
    store, and the groups are closed, so that whoever waits for this rank fails at once and finds it there.
    Raises Lost where another rank is gone without a word.
    """
    if not started_by_agent():
        yield ALONE
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    cuda = device != "cpu" and visible_cards() > 0
    if cuda:
        torch.cuda.set_device(local_rank())
        _avoid_peer_access(torch.cuda.get_device_name(local_rank()))
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    # The agent's store outlives the ranks: without a prefix for each start, gloo reads a dead rank's address.
    # Two connections, since a group that waits for a lost rank may hold the one it was given.
    prefix = f"ptbr-slm/{restarts()}"
    store, own = (
        PrefixStore(prefix, next(rendezvous("env://", rank, world, timeout=timeout))[0])
        for timeout in (DATA_TIMEOUT, WORD_TIMEOUT)
    )
    with _quiet_stdout():
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=DATA_TIMEOUT)
        control = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
    try:
        yield Ranks(rank, world, local_rank(), control)
    except Lost:
        raise
    except BaseException as error:
        if not _is_loss(error):
            _leave_word(own, error)
            raise
        if (word := _word_left(own)) is not None:
            raise word from error
        raise Lost(str(error)) from error
    finally:
        dist.destroy_process_group()


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Nothing reaches the process's standard output while the block runs.

    The gloo of PyTorch 2.10 (Kaggle's) prints there how many peers each group has found (pytorch/gloo#462),
    into the middle of `--json`.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # closed: nothing can be printed there
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


_WORD = "why"


def _leave_word(store: Any, error: BaseException) -> None:
    try:
        word = pickle.dumps(error)
        pickle.loads(word)
    except Exception:
        word = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    with suppress(Exception):  # the store may be gone with its host
        store.set(_WORD, word.hex())


def _word_left(store: Any) -> BaseException | None:
    """The exception that another rank left before it went."""
    with suppress(Exception):
        if store.check([_WORD]):
            error: BaseException = pickle.loads(bytes.fromhex(store.get(_WORD).decode()))
            return error
    return None


def _is_loss(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone. Gloo says so in a plain RuntimeError."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in text or "connection" in text or "nccl" in text)
    )


def _avoid_peer_access(card: str) -> None:
    """T4s have no NVLink, and in the virtual machines that rent them out NCCL's direct copies hang instead of
    failing (taming-transformers#235, xgboost#11242). Through host memory it is as fast. Whoever set the
    variable decides.
    """
    if "T4" in card:
        os.environ.setdefault("NCCL_P2P_DISABLE", "1")
