"""The nearest orthogonal matrix, by matrix products alone, in buffers that are allocated once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Coefficients = tuple[tuple[float, float, float], ...]

JORDAN: Coefficients = ((3.4445, -4.7750, 2.0315),) * 5
"""Muon's own polynomial, five times (Keller Jordan, kellerjordan.github.io/posts/muon)."""


SQUARES = 4
"""m x m buffers that a batch needs."""
WIDE = 1.5
"""Columns a row from which the iteration on Gram matrices is the cheaper one, with five steps."""


def compute_dtype(device: torch.device) -> torch.dtype:
    """bf16 where it has its own units (compute capability 8.0 and above), else fp32.

    Not by `is_bf16_supported`, which says yes on a T4, where bf16 is emulated at a ninth of fp16's speed.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float32


class NewtonSchulz:
    """Orthogonalises batches of matrices in place.

    A matrix U S V^T becomes about U V^T: each step applies the odd polynomial a s + b s^3 + c s^5 to all its
    singular values at once. With Jordan's they end between 0.7 and 1.2, which does not matter to Muon.
    """

    def __init__(self, elements: int, gram_elements: int, dtype: torch.dtype, device: torch.device) -> None:
        """Room for batches of up to `elements` numbers, whose smaller Gram matrices take `gram_elements`."""
        self._x = torch.empty(elements, dtype=dtype, device=device)
        self._spare = torch.empty_like(self._x)
        self._squares = torch.empty(SQUARES, gram_elements, dtype=dtype, device=device)

    def room(self, count: int, m: int, n: int) -> Tensor:
        """(count, m, n) to fill with matrices, m <= n; what was there before is lost."""
        return self._x[: count * m * n].view(count, m, n)

    def orthogonalize(self, x: Tensor, coefficients: Coefficients = JORDAN) -> Tensor:
        """x: (count, m, n) from `room` -> the same, orthogonalised, in one of the buffers."""
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
