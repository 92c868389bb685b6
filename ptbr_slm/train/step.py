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

from ptbr_slm.model import IGNORE, Llama
from ptbr_slm.train.precision import Precision


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did."""

    loss: float
    """Mean cross-entropy in nats over the target tokens of the whole step."""
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


def optimizer_step(
    model: Llama,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[npt.NDArray[np.int64]],
    *,
    precision: Precision,
    scaler: torch.amp.GradScaler | None,
    gradient_clip: float,
) -> StepResult:
    """Forward and backward over each micro-batch (rows, T+1), then one update.

    Every micro-batch's loss is divided by the target tokens of the whole step, so that the gradient is that
    of one large batch whatever the number and size of micro-batches. The host waits for the device once.
    """
    device = model.embed.weight.device
    optimizer.zero_grad(set_to_none=True)
    target_tokens = sum(int((batch[:, 1:] != IGNORE).sum()) for batch in micro_batches)
    loss = torch.zeros((), device=device)
    for batch in micro_batches:
        rows = _to_device(batch, device)  # (B, T+1)
        with autocast(device, precision):
            share = model.loss_sum(rows[:, :-1], rows[:, 1:]) / target_tokens
        torch.autograd.backward(share if scaler is None else scaler.scale(share))
        loss += share.detach()
    if scaler is not None:
        scaler.unscale_(optimizer)  # clip what the optimizer will see, not 65,536 times it
    norm = clip_gradient(model, gradient_clip)
    loss_value, norm_value = torch.stack((loss, norm)).tolist()  # the one wait
    finite = math.isfinite(loss_value) and math.isfinite(norm_value)
    if scaler is not None:
        scaler.step(optimizer)  # skips by itself where the gradient overflowed
        scaler.update()
    elif finite:
        optimizer.step()
    return StepResult(loss_value, norm_value, target_tokens, finite)


def clip_gradient(model: nn.Module, limit: float) -> Tensor:
    """Scale the gradient down to norm `limit` (0: never); returns the norm before that, a scalar tensor."""
    parameters = list(model.parameters())
    return torch.nn.utils.clip_grad_norm_(parameters, limit or math.inf, foreach=True)


def _to_device(batch: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    rows = torch.from_numpy(batch)
    return rows.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else rows
