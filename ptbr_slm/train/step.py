"""One optimizer step over its micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ptbr_slm.faults import maybe_fail
from ptbr_slm.model import IGNORE, Llama
from ptbr_slm.train.parallel import Parallel
from ptbr_slm.train.precision import Precision
from ptbr_slm.train.ranks import ALONE, Ranks


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did."""

    loss: float
    """Mean cross-entropy in nats over the target tokens of the whole step, all ranks."""
    grad_norm: float
    """Norm of the whole gradient before clipping, unscaled."""
    target_tokens: int
    applied: bool
    """False where loss or gradient was not finite: the weights are then untouched."""


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The autocast of this precision; does nothing in fp32."""
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision.name]
    # No cache of cast weights: each is used once a forward pass, and with recomputed layers the cache would
    # hold 2 bytes a parameter for nothing: 1.4 GiB of an 800m on a T4 (tests/surface/test_memory.py).
    return torch.autocast(device.type, dtype, enabled=precision.name != "fp32", cache_enabled=False)


class OutOfMemory(Exception):
    """The memory ran out in a step of which nothing was applied: free it, take smaller micro-batches, do it again.

    Raised on all ranks alike; the gradients are dropped already. What the device said is `str(error)`.
    """


class OutOfMemoryAmongOthers(OutOfMemory):
    """The memory ran out on this rank while the others were waiting for it inside a collective: they cannot be
    rejoined. Leave the process: the agent starts all ranks again, from the last checkpoint."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch says that the device's, or the CPU's, memory was not enough."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def optimizer_step(
    model: Llama,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[npt.NDArray[np.int64]],
    *,
    precision: Precision,
    scaler: torch.amp.GradScaler | None,
    gradient_clip: float,
    parallel: Parallel | None = None,
    ranks: Ranks = ALONE,
) -> StepResult:
    """Forward and backward over each of this rank's micro-batches (rows, T+1), then one update.

    Every micro-batch's loss is divided by the target tokens of the whole step, so that the gradient is that
    of one large batch whatever the number and size of micro-batches, and the number of ranks. The host waits for
    the device once. Raises OutOfMemory.
    """
    optimizer.zero_grad(set_to_none=True)
    target_tokens = ranks.total(sum(int((batch[:, 1:] != IGNORE).sum()) for batch in micro_batches))
    loss = _accumulate(parallel or Parallel(model), micro_batches, target_tokens, precision, scaler, ranks)
    if scaler is not None:
        scaler.unscale_(optimizer)  # clip what the optimizer will see, not 65,536 times it
    norm = clip_gradient(model, gradient_clip)
    loss_value, norm_value = torch.stack((loss, norm)).tolist()  # the one wait
    finite = math.isfinite(loss_value) and math.isfinite(norm_value)
    maybe_fail("step.optimizer")
    if scaler is not None:
        scaler.step(optimizer)  # skips by itself where the gradient overflowed
        scaler.update()
    elif finite:
        optimizer.step()
    return StepResult(loss_value, norm_value, target_tokens, finite)


def _accumulate(
    parallel: Parallel,
    micro_batches: Sequence[npt.NDArray[np.int64]],
    target_tokens: int,
    precision: Precision,
    scaler: torch.amp.GradScaler | None,
    ranks: Ranks,
) -> Tensor:
    """Gradients of the whole step into `.grad`; returns its mean loss over all ranks, a scalar on the device.

    The ranks ask each other whether all of them came through just before the last backward pass, in which
    the gradients meet: until there a rank whose memory ran out holds up nobody.
    """
    device = parallel.model.embed.weight.device
    loss = torch.zeros((), device=device)
    factor = torch.ones((), device=device) / target_tokens
    parallel.model.backward_scale = factor if scaler is None else scaler.scale(factor)

    def forward(batch: npt.NDArray[np.int64]) -> Tensor:
        maybe_fail("step.forward")
        rows = _to_device(batch, device)  # (B, T+1)
        with autocast(device, precision):
            share = parallel.loss_sum(rows[:, :-1], rows[:, 1:]) / target_tokens
        return share * math.nan if maybe_fail("step.loss") else share

    def backward(share: Tensor) -> None:
        maybe_fail("step.backward")
        torch.autograd.backward(share if scaler is None else scaler.scale(share))
        loss.add_(share.detach())

    *before, last = micro_batches
    said, together, share = "", False, None
    try:
        with parallel.micro_batch(last=False):
            for batch in before:
                backward(forward(batch))
        with parallel.micro_batch(last=True):
            share = forward(last)
            together = ranks.world > 1
            if not ranks.any(False):
                backward(share)
                return ranks.sum_(loss)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).splitlines()[0]
    # Outside the except block, whose traceback would keep every tensor of the partial step alive.
    share = None
    parallel.model.zero_grad(set_to_none=True)
    if together and said:
        raise OutOfMemoryAmongOthers(said)
    if not together:
        ranks.any(True)
    raise OutOfMemory(said or "on another rank")


def clip_gradient(model: nn.Module, limit: float) -> Tensor:
    """Scale the gradient down to norm `limit` (0: never); returns the norm before that, a scalar tensor."""
    parameters = list(model.parameters())
    return torch.nn.utils.clip_grad_norm_(parameters, limit or math.inf, foreach=True)


def _to_device(batch: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    rows = torch.from_numpy(batch)
    return rows.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else rows
