"""Bits per byte on held-out text: comparable between tokenizers, unlike perplexity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ptbr_slm.data.prepared import Split
from ptbr_slm.model import IGNORE, Llama
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.parallel.world import ALONE, Ranks
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.step import autocast, to_device


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out windows chosen once, so that every evaluation of a run reads the same text."""

    inputs: npt.NDArray[np.int64]
    """(windows, T)"""
    targets: npt.NDArray[np.int64]
    """(windows, T); special tokens and padding are IGNORE."""
    bytes: int
    """UTF-8 bytes of the targets that count."""


def held_out(split: Split, tokenizer: Tokenizer, seq_len: int, tokens: int) -> HeldOut | None:
    """About `tokens` targets in windows spread evenly over the split; None where it has no text."""
    if split.tokens < 2:
        return None
    available = math.ceil((split.tokens - 1) / seq_len)
    wanted = min(available, max(1, tokens // seq_len))
    chosen = np.arange(wanted) * available // wanted
    rows = np.full((wanted, seq_len + 1), IGNORE, np.int64)
    for row, window in zip(rows, chosen, strict=True):
        piece = split.read(int(window) * seq_len, min(split.tokens, (int(window) + 1) * seq_len + 1))
        row[: len(piece)] = piece
    inputs, targets = np.maximum(rows[:, :-1], 0), rows[:, 1:].copy()
    targets[np.isin(targets, list(tokenizer.special_ids))] = IGNORE
    size = int(tokenizer.target_bytes(np.maximum(rows, 0))[targets != IGNORE].sum())
    return HeldOut(inputs, targets, size) if size else None


def _cut(mine: slice, size: int, windows: int) -> list[tuple[slice, bool]]:
    """`mine` in pieces of `size`, then others, which do not count, up to as many as `windows` make."""
    pieces = [
        (slice(start, min(start + size, mine.stop)), True) for start in range(mine.start, mine.stop, size)
    ]
    return pieces + [(slice(0, 1), False)] * (math.ceil(windows / size) - len(pieces))


@torch.no_grad()
def bits_per_byte(
    model: Llama | Parallel, text: HeldOut, batch_size: int, precision: Precision, ranks: Ranks = ALONE
) -> float:
    """Nats over the targets that count / ln 2 / their bytes; each rank reads its share of the windows."""
    parallel = model if isinstance(model, Parallel) else Parallel(model)
    model = parallel.model
    device = model.embed.weight.device
    was_training = model.training
    model.eval()
    nats = torch.zeros((), dtype=torch.float64, device=device)
    mine = ranks.share(len(text.inputs))
    most = math.ceil(len(text.inputs) / ranks.world) if parallel.lockstep else 0
    for rows, counts in _cut(mine, batch_size, most):
        inputs = to_device(text.inputs[rows], device)  # (B, T)
        targets = to_device(text.targets[rows], device)
        if not counts:  # the others have another batch, and need this rank there
            targets = torch.full_like(targets, IGNORE)
        with autocast(device, precision):
            nats += parallel.loss_sum(inputs, targets)
    model.train(was_training)
    return float(ranks.sum_(nats)) / math.log(2) / text.bytes
