"""Muon: momentum, orthogonalised by Newton-Schulz, for the matrices of the layers; AdamW for all else.

Keller Jordan et al., 2024 (kellerjordan.github.io/posts/muon); scale of the update after Moonlight
(arXiv:2502.16982). Unlike torch.optim.Muon, which is bf16 on every device: fp16 where bf16 has no units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptbr_slm.train.optim.adamw import AdamW
from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks

BATCH_ELEMENTS = 1 << 23
"""Numbers orthogonalised at once on a rank: 32 MiB a buffer in fp32, of which there are two, and squares."""
Coefficients = tuple[tuple[float, float, float], ...]

JORDAN: Coefficients = ((3.4445, -4.7750, 2.0315),) * 5
"""Muon's own polynomial, five times (Keller Jordan, kellerjordan.github.io/posts/muon)."""
SQUARES = 4
"""m x m buffers that a batch needs."""
WIDE = 1.5
"""Columns a row from which the iteration on Gram matrices is the cheaper one, with five steps."""


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
    precision: the run's, which decides on a CPU what the orthogonalisation computes in.
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
        ranks: Ranks = SINGLE_PROCESS,
        precision: str = "fp32",
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
        device = matrices[0].device
        self._buffers = self._allocate(device, compute_dtype(device, precision))

    def _allocate(self, device: torch.device, dtype: torch.dtype) -> tuple[NewtonSchulz, Tensor]:
        world = self._ranks.world
        mine = [(-(-len(batch) // world), *batch[0].shape) for batch in self._batches]
        largest = max(count * m * n for count, m, n in mine)
        gram = max(count * m * m for count, m, n in mine)
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
        # Nesterov: one step ahead of the momentum.
        torch._foreach_lerp_(gradients, momenta, group["momentum"])
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
        x = newton_schulz.buffer(count, *batch[0].shape)
        mine = batch[rank * count : (rank + 1) * count]
        for matrix, part in zip(x, mine, strict=False):
            fill(matrix, part)
        x[len(mine) :].zero_()
        x = newton_schulz.orthogonalize(x)
        if world == 1:
            return x
        updates = gathered[: world * x.numel()].view(world * count, *batch[0].shape)
        updates.zero_()[rank * count : (rank + 1) * count] = x
        return self._ranks.sum_(updates)  # of one rank's numbers and zeros: exact


def fill(matrix: Tensor, part: Part) -> None:
    """Copy a part's gradient, which may be overwritten, into a buffer (m, n): as it is, or of norm 1 in fp16,
    whose smallest numbers a gradient may be below.
    """
    assert part.parameter.grad is not None
    gradient = part.of(part.parameter.grad)
    if matrix.dtype is torch.float16:
        gradient.div_(torch.linalg.matrix_norm(gradient).clamp_(min=1e-30))
    matrix.copy_(gradient)


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


def compute_dtype(device: torch.device, precision: str = "fp32") -> torch.dtype:
    """bf16 where it has units of its own (compute capability 8.0 and above; a CPU that trains in it), fp16
    where only that has them (7.0), else fp32. fp16's error is an eighth of bf16's.

    Not by `is_bf16_supported`, which says yes on a T4, where bf16 is emulated at a ninth of fp16's speed.
    """
    if device.type != "cuda":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0):
        return torch.bfloat16
    return torch.float16 if capability >= (7, 0) else torch.float32


class NewtonSchulz:
    """Orthogonalises batches of matrices in place.

    A matrix U S V^T becomes about U V^T: each step applies the odd polynomial a s + b s^3 + c s^5 to all its
    singular values at once. With Jordan's they end between 0.7 and 1.2, which does not matter to Muon.
    """

    def __init__(self, elements: int, gram_elements: int, dtype: torch.dtype, device: torch.device) -> None:
        """For batches of up to `elements` numbers, whose smaller Gram matrices take `gram_elements`."""
        self._x = torch.empty(elements, dtype=dtype, device=device)
        self._spare = torch.empty_like(self._x)
        self._squares = torch.empty(SQUARES, gram_elements, dtype=dtype, device=device)

    def buffer(self, count: int, m: int, n: int) -> Tensor:
        """(count, m, n) to fill with matrices, m <= n; what was there before is lost."""
        return self._x[: count * m * n].view(count, m, n)

    def orthogonalize(self, x: Tensor, coefficients: Coefficients = JORDAN) -> Tensor:
        """x: (count, m, n) from `buffer` -> the same, orthogonalised, in one of the buffers."""
        count, m, n = x.shape
        x /= torch.linalg.matrix_norm(x, keepdim=True).clamp_(min=1e-7)  # singular values at most 1
        spare = self._spare[: count * m * n].view(count, m, n)
        squares = [square[: count * m * m].view(count, m, m) for square in self._squares]
        if x.dtype is torch.float32 and n > WIDE * m:
            return _by_gram(x, spare, squares, coefficients)
        return _plain(x, spare, squares, coefficients)


def _plain(x: Tensor, spare: Tensor, squares: list[Tensor], coefficients: Coefficients) -> Tensor:
    """X <- a X + (b G + c G G) X with G = X X^T, step by step: 4 m^2 n + 2 m^3 operations each."""
    gram, polynomial = squares[:2]
    for a, b, c in coefficients:
        torch.bmm(x, x.mT, out=gram)
        torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=polynomial)
        torch.baddbmm(x, polynomial, x, beta=a, out=spare)
        x, spare = spare, x
    return x


def _by_gram(x: Tensor, out: Tensor, squares: list[Tensor], coefficients: Coefficients) -> Tensor:
    """The same polynomials, gathered in an m x m matrix that meets X only at the end: 8 m^3 operations each.

    S = a I + b G + c G G is a polynomial of the first G, as all here are: they commute, and are symmetric. So
    the next G is S G S, and the product of all S, times X, is the result. In fp32 only: bf16's rounding of G
    would grow by a^2 a step.
    """
    gram, step, product, other = squares
    torch.bmm(x, x.mT, out=gram)
    for index, (a, b, c) in enumerate(coefficients):
        torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=step)
        step.diagonal(dim1=-2, dim2=-1).add_(a)
        if index == 0:
            product.copy_(step)
        else:
            torch.bmm(step, product, out=other)
            product, other = other, product
        if index < len(coefficients) - 1:
            torch.bmm(step, gram, out=other)
            torch.bmm(other, step, out=gram)
    return torch.bmm(product, x, out=out)


def update_scale(m: int, n: int) -> float:
    """What gives an orthogonal m x n matrix the root mean square of an AdamW update, 0.2.

    An orthogonal matrix has 1/sqrt(max(m, n)). Learning rate and decay then mean for Muon what they mean for
    AdamW, whatever the shape (Moonlight: Liu et al., 2025, arXiv:2502.16982).
    """
    return 0.2 * math.sqrt(max(m, n))
