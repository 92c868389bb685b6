"""Bits per byte of a model in training; `ptbr_slm.eval.bits` says what they are and on which windows."""

from __future__ import annotations

import math

import torch

from ptbr_slm.eval.bits import HeldOut
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.step import autocast


def _cut(mine: slice, size: int, windows: int) -> list[tuple[slice, bool]]:
    """`mine` in pieces of `size`, then others, which do not count, up to as many as `windows` make."""
    pieces = [
        (slice(start, min(start + size, mine.stop)), True) for start in range(mine.start, mine.stop, size)
    ]
    return pieces + [(slice(0, 1), False)] * (math.ceil(windows / size) - len(pieces))


@torch.no_grad()
def bits_per_byte(
    model: Llama | Parallel,
    text: HeldOut,
    batch_size: int,
    precision: Precision,
    ranks: Ranks = SINGLE_PROCESS,
) -> float:
    """Of the whole text; each rank reads its share of the windows."""
    parallel = model if isinstance(model, Parallel) else Parallel(model)
    model = parallel.model
    device = model.embed.weight.device
    was_training = model.training
    model.eval()
    nats = torch.zeros((), dtype=torch.float64, device=device)
    mine = ranks.share(len(text.inputs))
    most = math.ceil(len(text.inputs) / ranks.world) if parallel.lockstep else 0
    for part, counts in _cut(mine, batch_size, most):
        batch = MicroBatch(text.inputs[part], text.targets[part]).to(device)
        if not counts:  # the others have another batch, and need this rank there
            batch = batch.without_targets()
        with autocast(device, precision):
            nats += parallel.loss_sum(batch.tokens, batch.targets)
    model.train(was_training)
    return text.value(float(ranks.sum_(nats)))
