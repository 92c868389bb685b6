"""Which tokens attend to which, where it is not plainly all before: behind a cache, and within documents.

Shapes: B sequences, T tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cache_mask(new: int, total: int, device: torch.device) -> Tensor | None:
    """(T, total) boolean mask for T new tokens at the end of `total`; None for one, which attends to all."""
    if new == 1:
        return None
    return torch.ones(new, total, dtype=torch.bool, device=device).tril(total - new)


def document_mask(document_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, T) -> (B, 1, T, T) to add to the scores: 0 where a token may attend, -inf elsewhere.

    It may attend to itself and at what comes before it in its own document.
    """
    same = document_ids[:, :, None] == document_ids[:, None, :]  # (B, T, T)
    zeros = torch.zeros(same.shape, dtype=dtype, device=same.device)
    return zeros.masked_fill_(~same.tril_(), -math.inf)[:, None]


def document_positions(document_ids: Tensor) -> Tensor:
    """(B, T) -> (B, T) int64: the position of each token in its own document, from 0."""
    index = torch.arange(document_ids.shape[1], device=document_ids.device)
    begins = torch.zeros_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return index - torch.where(begins, index, 0).cummax(dim=1).values
