"""One optimizer step over its micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ptbr_slm.errors import says_out_of_memory
from ptbr_slm.faults import maybe_fail
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.parallel.messages import RankLost
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks
from ptbr_slm.train.planning.precision import Precision


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did."""

    loss: float
    """Mean loss of the whole step, all ranks: cross-entropy in nats over its target tokens."""
    grad_norm: float
    """Norm of the whole gradient before clipping, unscaled."""
    target_tokens: int
    applied: bool
    """False where loss or gradient was not finite: the weights are then untouched."""
    parts: int = 1
    """Micro-batches of the step, over all ranks."""
    bad_parts: tuple[int, ...] = ()
    """Those, from 1 and in the order of the ranks, where loss or gradient ceased to be finite."""
    scale: float | None = None
    """The loss scale that the step was computed with; None without a scaler."""


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The autocast of this precision; does nothing in fp32."""
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision.name]
    # No cache of cast weights: each is used once a forward pass, and with recomputed layers the cache would
    # hold 2 bytes a parameter for nothing: 1.4 GiB of an 800m on a T4 (tests/train/planning/test_memory.py).
    return torch.autocast(device.type, dtype, enabled=precision.name != "fp32", cache_enabled=False)


class OutOfMemory(Exception):
    """The memory ran out in a step of which nothing was applied: free it, take smaller micro-batches, do it
    again.

    Raised on all ranks; the gradients are dropped already. The device's message is `str(error)`.
    """


class OutOfMemoryAmongOthers(OutOfMemory, RankLost):
    """The memory ran out on this rank while the others were waiting for it inside a collective: they cannot
    be rejoined. Leave the process: the agent starts all ranks again, from the last checkpoint.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch says that the device's, or the CPU's, memory was not enough."""
    return isinstance(error, RuntimeError) and says_out_of_memory(error)


def optimizer_step(
    model: Llama,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[MicroBatch],
    *,
    precision: Precision,
    scaler: torch.amp.GradScaler | None,
    gradient_clip: float,
    parallel: Parallel | None = None,
    ranks: Ranks = SINGLE_PROCESS,
) -> StepResult:
    """Forward and backward over each of this rank's micro-batches, then one update.

    Every micro-batch's loss is divided by the target tokens of the whole step (`MicroBatch.divisor`), so that
    the gradient is that of one large batch whatever the number and size of micro-batches, and the number of
    ranks. The host waits for the device once. Raises OutOfMemory.
    """
    parallel = parallel or Parallel(model)
    parallel.clear_gradients()
    divisor = sum(batch.divisor for batch in micro_batches)
    targets = sum(batch.target_tokens for batch in micro_batches)
    counts = ranks.exchange([divisor, len(micro_batches), targets])
    divisor, parts, target_tokens = (int(sum(column)) for column in zip(*counts, strict=True))
    first = int(sum(count[1] for count in counts[: ranks.rank]))
    idle = int(max(count[1] for count in counts)) - len(micro_batches) if parallel.lockstep else 0
    found = _accumulate(parallel, micro_batches, divisor, precision, scaler, ranks, first, parts, idle)
    if scaler is not None:
        scaler.unscale_(optimizer)  # clip what the optimizer will see, not 65,536 times it
    norm = clip_gradient(model, gradient_clip)
    scale = torch.ones_like(norm) if scaler is None else scaler.scale(torch.ones_like(norm))
    loss_value, *flags, norm_value, scale_value = torch.cat(
        (found, torch.stack((norm, scale)))
    ).tolist()  # the one wait
    finite = math.isfinite(loss_value) and math.isfinite(norm_value)
    maybe_fail("step.optimizer")
    # Not scaler.step, which would read the flag that the host has already: a second wait with optimizers
    # that are not fused (torch/amp/grad_scaler.py, _maybe_opt_step).
    if finite:
        optimizer.step()
    if scaler is not None:
        scaler.update()
    return StepResult(
        loss_value,
        norm_value,
        target_tokens,
        finite,
        parts,
        () if finite else tuple(number for number, flag in enumerate(flags, start=1) if flag),
        None if scaler is None else scale_value,
    )


def _accumulate(
    parallel: Parallel,
    micro_batches: Sequence[MicroBatch],
    divisor: int,
    precision: Precision,
    scaler: torch.amp.GradScaler | None,
    ranks: Ranks,
    first: int,
    parts: int,
    idle: int,
) -> Tensor:
    """Gradients of the whole step into `.grad`; returns, on the device, (1 + parts,): the mean loss over all
    ranks, and for each micro-batch (this rank's from `first` on) whether its loss or gradient was not finite.

    Gradients are summed over the ranks in the last backward pass. Just before it the ranks agree whether any
    of them ran out of memory; until there none waits for another. Where gradients are summed in every pass, a
    rank makes `idle` passes whose loss is 0, for those that have more micro-batches.
    """
    device = parallel.model.embed.weight.device
    found = torch.zeros(1 + parts, device=device)
    factor = torch.ones((), device=device) / divisor
    parallel.model.backward_scale = factor if scaler is None else scaler.scale(factor)
    # Of the micro-batch itself: the gradients of the weights are sums over micro-batches and, after the last
    # backward pass or in shards after each, over ranks. What is not finite in a layer arrives at the first.
    arrived: list[Tensor] = []
    parallel.model.gradient_hook = lambda gradient: arrived.append(_not_finite(gradient))

    def forward(batch: MicroBatch, counts: bool = True) -> Tensor:
        maybe_fail("step.forward")
        there = batch.to(device)
        if not counts:
            there = there.without_targets()
        with autocast(device, precision):
            loss = parallel.loss_sum(there)
        share = loss / divisor
        return share * math.nan if maybe_fail("step.loss") else share

    def backward(number: int, share: Tensor) -> None:
        maybe_fail("step.backward")
        arrived.clear()
        torch.autograd.backward(share if scaler is None else scaler.scale(share))
        found[0].add_(share.detach())
        found[1 + first + number] = torch.stack((_not_finite(share), *arrived)).amax()

    *before, last = micro_batches
    reported, synchronized, share = "", parallel.lockstep, None
    try:
        for _ in range(idle):
            torch.autograd.backward(forward(last[:1], counts=False))
        with parallel.micro_batch(last=False):
            for number, batch in enumerate(before):
                backward(number, forward(batch))
        with parallel.micro_batch(last=True):
            share = forward(last)
            synchronized = ranks.world > 1
            if not ranks.any(False):
                backward(len(before), share)
                return ranks.sum_(found)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reported = str(error).splitlines()[0]
    finally:
        parallel.model.gradient_hook = None
    # Outside the except block, whose traceback would keep every tensor of the partial step alive.
    share = None
    if synchronized and reported:
        raise OutOfMemoryAmongOthers(reported)
    if not synchronized:
        ranks.any(True)
    parallel.drop_step()
    raise OutOfMemory(reported or "on another rank")


def all_finite(model: nn.Module) -> bool:
    """Whether every weight that this rank holds is a finite number."""
    return not float(sum(_not_finite(_local(weight)) for weight in model.parameters()))


def _local(tensor: Any) -> Tensor:
    """This rank's part of a tensor that is in shards."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


def _not_finite(tensor: Tensor) -> Tensor:
    """1.0 where any element is infinite or not a number, on the device: the host does not wait."""
    return (~torch.isfinite(tensor.detach()).all()).float()


def clip_gradient(model: nn.Module, limit: float) -> Tensor:
    """Scale the gradient down to norm `limit` (0: never); returns the norm before that, a scalar tensor.

    Of a sharded model, the norm over all ranks.
    """
    norm = torch.nn.utils.clip_grad_norm_(list(model.parameters()), limit or math.inf, foreach=True)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
