"""Muon: momentum, orthogonalised, for the matrices of the layers; AdamW for everything else.

Keller Jordan et al., 2024 (kellerjordan.github.io/posts/muon); scale of the update after Moonlight
(arXiv:2502.16982). Unlike torch.optim.Muon, which is bf16 on every device: fp32 where bf16 has no units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptbr_slm.train.optim.adamw import AdamW
from ptbr_slm.train.optim.newton_schulz import NewtonSchulz, compute_dtype, update_scale
from ptbr_slm.train.parallel.world import ALONE, Ranks

BATCH_ELEMENTS = 1 << 23
"""Numbers orthogonalised at once on a rank: 32 MiB a buffer in fp32, of which there are two, and squares."""


@dataclass(frozen=True, slots=True)
class Part:
    """A matrix, perhaps one of several that share a parameter: its rows start..stop."""

    parameter: nn.Parameter
    start: int
    stop: int

    def of(self, tensor: Tensor) -> Tensor:
        """Its rows of a tensor of the parameter's shape, turned to have no more rows than columns."""
        rows = tensor[self.start : self.stop]
        return rows.mT if rows.shape[0] > rows.shape[1] else rows

    @property
    def shape(self) -> tuple[int, int]:
        """(smaller, larger) side."""
        rows, columns = self.stop - self.start, self.parameter.shape[1]
        return min(rows, columns), max(rows, columns)


class Muon(torch.optim.Optimizer):
    """One optimizer over both kinds of parameters; `param_groups[0]` holds Muon's, `[1]` AdamW's.

    parts: covers each of Muon's parameters whole. adamw: params, lr, betas, eps, weight_decay of the others.
    ranks: each orthogonalises its share of the matrices and gets the rest from the others; gradients must be
    the same on all of them. A step allocates a few bytes only: state and buffers are here before it.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        adamw: dict[str, Any],
        *,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        ranks: Ranks = ALONE,
    ) -> None:
        matrices = list(dict.fromkeys(part.parameter for part in parts))
        muon = {"params": matrices, "lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
        self._adamw = AdamW([adamw])
        super().__init__([muon, *self._adamw.param_groups], {})
        self._ranks = ranks
        self._batches = _batches(parts, ranks.world)
        for parameter in matrices:
            self.state[parameter] = {"momentum": torch.zeros_like(parameter)}
        self.state.update(self._adamw.state)
        self._adamw.param_groups = self.param_groups[1:]  # the same dictionaries: one rate, one state
        self._adamw.state = self.state
        self._buffers = self._allocate(matrices[0].device)

    def _allocate(self, device: torch.device) -> tuple[NewtonSchulz, Tensor]:
        world = self._ranks.world
        mine = [(-(-len(batch) // world), *batch[0].shape) for batch in self._batches]
        largest = max(count * m * n for count, m, n in mine)
        gram = max(count * m * m for count, m, n in mine)
        dtype = compute_dtype(device)
        gathered = torch.empty(largest * world if world > 1 else 0, dtype=dtype, device=device)
        return NewtonSchulz(largest, gram, dtype, device), gathered

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter from its gradient, which is overwritten."""
        assert closure is None
        self._adamw.step()
        group = self.param_groups[0]
        gradients = [parameter.grad for parameter in group["params"]]
        momenta = [self.state[parameter]["momentum"] for parameter in group["params"]]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        torch._foreach_lerp_(
            gradients, momenta, group["momentum"]
        )  # Nesterov: one step ahead of the momentum
        torch._foreach_mul_(group["params"], 1 - group["lr"] * group["weight_decay"])
        for batch in self._batches:
            updates = self._orthogonal(batch)
            rate = group["lr"] * update_scale(*batch[0].shape)
            for part, update in zip(batch, updates, strict=False):  # padded to a multiple of the ranks
                part.of(part.parameter).add_(update, alpha=-rate)

    def _orthogonal(self, batch: Sequence[Part]) -> Tensor:
        """(at least len(batch), m, n): the updates of a batch, of which this rank computed its share."""
        newton_schulz, gathered = self._buffers
        rank, world = self._ranks.rank, self._ranks.world
        count = -(-len(batch) // world)
        x = newton_schulz.room(count, *batch[0].shape)
        mine = batch[rank * count : (rank + 1) * count]
        for row, part in zip(x, mine, strict=False):
            assert part.parameter.grad is not None
            row.copy_(part.of(part.parameter.grad))
        x[len(mine) :].zero_()
        x = newton_schulz.orthogonalize(x)
        if world == 1:
            return x
        updates = gathered[: world * x.numel()].view(world * count, *batch[0].shape)
        updates.zero_()[rank * count : (rank + 1) * count] = x
        return self._ranks.sum_(updates)  # of one rank's numbers and zeros: exact


def _batches(parts: Sequence[Part], world: int) -> list[list[Part]]:
    """Parts of one shape together, up to BATCH_ELEMENTS numbers a rank: one product instead of many."""
    by_shape: dict[tuple[int, int], list[Part]] = {}
    for part in parts:
        by_shape.setdefault(part.shape, []).append(part)
    batches = []
    for (m, n), same in by_shape.items():
        most = world * max(1, BATCH_ELEMENTS // (m * n))
        batches += [same[start : start + most] for start in range(0, len(same), most)]
    return batches
