"""The ranks of a training: this process's number among them, their collectives, and how they connect.

What a run computes does not depend on the number of ranks: an optimizer step takes `batch_size * grad_accum`
sequences in all, and each rank computes its share of them. Only `Ranks.main` writes files and calls the
listener; what depends on files, clocks or signals is decided there and sent to all (`from_main`), or is
true for all where it is true on one (`any`). Values and errors travel as JSON (`messages`), numbers as
tensors; nothing is pickled.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ptbr_slm.errors import SlmError
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.parallel.environment import local_rank, restarts, started_by_agent, visible_cards
from ptbr_slm.train.parallel.messages import RankLost, decode, decode_error, encode, encode_error

T = TypeVar("T")

DATA_TIMEOUT = timedelta(minutes=30)
"""For gradients and losses: no rank is ever further behind than a step, an evaluation or a sample."""
STORE_TIMEOUT = timedelta(seconds=60)
"""For the store in which a rank leaves its error."""
CONTROL_TIMEOUT = timedelta(days=7)
"""For messages between the ranks: the others wait for one while the main rank prepares data or writes a
checkpoint. A rank that dies ends the wait at once, since its connections close."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process of `world`; with a world of 1 nothing here communicates."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Its number on this machine: the index of its GPU."""
    control: dist.ProcessGroup | None = None
    """The gloo group for messages; the tensors of the training go through the default group."""

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes files and calls the listener."""
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

    # Messages, on the CPU: they never wait for the device.

    def exchange(self, numbers: Sequence[float]) -> list[list[float]]:
        """Every rank's `numbers` (as many on each), in the order of the ranks."""
        if self.world == 1:
            return [list(numbers)]
        mine = torch.tensor(numbers, dtype=torch.float64)
        theirs = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(theirs, mine, group=self.control)
        return [tensor.tolist() for tensor in theirs]

    def total(self, count: int) -> int:
        """The sum of a count over the ranks."""
        return int(sum(numbers[0] for numbers in self.exchange([count]))) if self.world > 1 else count

    def any(self, flag: bool) -> bool:
        """Whether any rank raises its flag; all get the same answer."""
        return any(numbers[0] for numbers in self.exchange([flag])) if self.world > 1 else flag

    def from_main(self, decide: Callable[[], T]) -> T:
        """What `decide` returns on the main rank, on every rank; what it raises there is raised on all.

        Only the main rank calls it. The value is small, of the types that `messages` lists.
        """
        if self.world == 1:
            return decide()
        if not self.main:
            body = self._broadcast(b"", 0)
            if body[:1] == _ERROR:
                raise decode_error(body[1:])
            value: T = decode(body[1:])
            return value
        try:
            value = decide()
            body = _VALUE + encode(value)
        except BaseException as error:
            self._broadcast(_ERROR + encode_error(error), 0)
            raise
        self._broadcast(body, 0)
        return value

    def main_first(self, work: Callable[[], T]) -> T:
        """Every rank's own `work()`; the others begin when the main rank is done, and find its files."""
        value: list[T] = []
        self.from_main(lambda: value.append(work()))
        return value[0] if self.main else work()

    def all_or_none(self, work: Callable[[], None]) -> None:
        """Every rank's own `work()`; where it fails on some, the first one's error is raised on all."""
        failure: Exception | None = None
        try:
            work()
        except Exception as error:
            failure = error
        failed = [bool(numbers[0]) for numbers in self.exchange([failure is not None])]
        if not any(failed):
            return
        first = failed.index(True)
        body = self._broadcast(b"" if failure is None else encode_error(failure), first)
        raise decode_error(body) if failure is None or self.rank != first else failure

    def _broadcast(self, body: bytes, source: int) -> bytes:
        """The bytes of rank `source`, on all."""
        if self.world == 1:
            return body
        size = torch.tensor([len(body)])
        dist.broadcast(size, src=source, group=self.control)
        buffer = torch.empty(int(size), dtype=torch.uint8)
        if self.rank == source:
            buffer = torch.frombuffer(bytearray(body), dtype=torch.uint8)
        dist.broadcast(buffer, src=source, group=self.control)
        return buffer.numpy().tobytes()


_VALUE, _ERROR = b"v", b"e"
"""First byte of a message: what follows is a value, or an error."""

SINGLE_PROCESS = Ranks()


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


@contextmanager
def join_ranks(device: str = "auto") -> Iterator[Ranks]:
    """Meet the other ranks that torchrun's environment names; SINGLE_PROCESS where it names none.

    device: auto, cpu or cuda, as in TrainConfig. On CUDA tensors go through NCCL, messages through gloo; on
    the CPU both through gloo. An exception of one rank becomes the exception of all: it is left in the
    agent's store, and the groups are closed, so that a rank that waits for this one fails at once and finds
    it there. Raises RankLost where another rank is gone and left no error.
    """
    if not started_by_agent():
        yield SINGLE_PROCESS
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    cuda = device != "cpu" and visible_cards() > 0
    if cuda:
        torch.cuda.set_device(local_rank())
        _avoid_peer_access(torch.cuda.get_device_name(local_rank()))
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    # The agent's store outlives the ranks: without a prefix for each start, gloo reads the address of a rank
    # that has exited.
    # Two connections, since a group that waits for a lost rank may hold the one it was given.
    prefix = f"ptbr-slm/{restarts()}"
    store, own = (
        PrefixStore(prefix, next(rendezvous("env://", rank, world, timeout=timeout))[0])
        for timeout in (DATA_TIMEOUT, STORE_TIMEOUT)
    )
    with _quiet_stdout():
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=DATA_TIMEOUT)
        control = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
    try:
        yield Ranks(rank, world, local_rank(), control)
    except RankLost:
        raise
    except BaseException as error:
        if not _is_loss(error):
            _leave_error(own, error)
            raise
        if (left := _error_left(own)) is not None:
            raise left from error
        raise RankLost(str(error)) from error
    finally:
        dist.destroy_process_group()


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Nothing reaches the process's standard output while the block runs.

    The gloo of PyTorch 2.10 (Kaggle's) prints there how many peers each group has found (pytorch/gloo#462),
    which would break the JSON lines of `--json`.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        stdout = os.dup(1)
    except OSError:  # closed: nothing can be printed there
        yield
        return
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.close(devnull)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


_ERROR_KEY = "error"


def _leave_error(store: Store, error: BaseException) -> None:
    """Put the error into the store, where the other ranks read it when this one has exited."""
    with suppress(Exception):  # the store may be gone with its host
        store.set(_ERROR_KEY, encode_error(error).decode())


def _error_left(store: Store) -> BaseException | None:
    """The exception that another rank left before it went."""
    with suppress(Exception):
        if store.check([_ERROR_KEY]):
            return decode_error(store.get(_ERROR_KEY))
    return None


def _is_loss(error: BaseException) -> bool:
    """Whether a collective failed because another rank is gone. Gloo says so in a plain RuntimeError."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in text or "connection" in text or "nccl" in text)
    )


def _avoid_peer_access(card: str) -> None:
    """T4s have no NVLink, and in the virtual machines that rent them out NCCL's direct copies hang instead of
    failing (taming-transformers#235, xgboost#11242). Through host memory it is as fast. A value that
    the user has set stays.
    """
    if "T4" in card:
        os.environ.setdefault("NCCL_P2P_DISABLE", "1")
