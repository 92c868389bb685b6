"""The nearest orthogonal matrix, by matrix products alone, in buffers that are allocated once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

JORDAN = ((3.4445, -4.7750, 2.0315),) * 5
"""Muon's own polynomial, five times (Keller Jordan, kellerjordan.github.io/posts/muon)."""


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
        self._gram = torch.empty(gram_elements, dtype=dtype, device=device)
        self._polynomial = torch.empty_like(self._gram)

    def room(self, count: int, m: int, n: int) -> Tensor:
        """(count, m, n) to fill with matrices, m <= n; what was there before is lost."""
        return self._x[: count * m * n].view(count, m, n)

    def orthogonalize(
        self, x: Tensor, coefficients: tuple[tuple[float, float, float], ...] = JORDAN
    ) -> Tensor:
        """x: (count, m, n) from `room` -> the same, orthogonalised, in one of the buffers."""
        count, m, n = x.shape
        spare = self._spare[: count * m * n].view(count, m, n)
        gram = self._gram[: count * m * m].view(count, m, m)
        polynomial = self._polynomial[: count * m * m].view(count, m, m)
        x /= torch.linalg.matrix_norm(x, keepdim=True).clamp_(min=1e-7)  # singular values at most 1
        for a, b, c in coefficients:
            torch.bmm(x, x.mT, out=gram)
            torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=polynomial)  # b G + c G G
            torch.baddbmm(x, polynomial, x, beta=a, out=spare)  # a X + (b G + c G G) X
            x, spare = spare, x
        return x


def update_scale(m: int, n: int) -> float:
    """What gives an orthogonal m x n matrix the root mean square of an AdamW update, 0.2.

    An orthogonal matrix has 1/sqrt(max(m, n)). Learning rate and decay then mean for Muon what they mean for
    AdamW, whatever the shape (Moonlight: Liu et al., 2025, arXiv:2502.16982).
    """
    return 0.2 * math.sqrt(max(m, n))
