"""What may be trained in place of frozen weights: an adapter beside a matrix, and rows of an embedding.

`ptbr_slm.model.Llama` has the places; `ptbr_slm.tune.lora` puts something there.

Shapes: B sequences, T tokens, C inputs (hidden_size), O outputs, V vocab_size, S trained rows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptbr_slm.loss import HeadRows


class Adapter(nn.Module):
    """What is trained in place of a frozen matrix, such as `ptbr_slm.tune.lora.LowRank`."""

    @abstractmethod
    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """What the adapted matrix makes of x: (..., C), weight (O, C) -> (..., O)."""

    @abstractmethod
    def merged(self, weight: Tensor) -> Tensor:
        """The adapted matrix (O, C), in fp32."""


class Projection(nn.Linear):
    """A matrix (O, C) without a bias, which an adapter may stand beside."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.adapter: Adapter | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., C) -> (..., O)."""
        if self.adapter is None:
            return F.linear(x, self.weight)
        output: Tensor = self.adapter(x, self.weight)
        return output

    def merged(self) -> Tensor:
        """The matrix as the model uses it, its adapter's part included."""
        return self.weight if self.adapter is None else self.adapter.merged(self.weight)


class TrainedRows(nn.Module):
    """Rows of a frozen matrix (V, C) that are trained in its place: those of a few tokens.

    They take the place of the matrix's rows wherever it is used. The same in `peft`:
    `trainable_token_indices`.
    """

    def __init__(self, ids: Sequence[int], weight: Tensor) -> None:
        super().__init__()
        self.ids: Tensor
        self.slots: Tensor
        slots = torch.full((len(weight),), -1)
        slots[list(ids)] = torch.arange(len(ids))
        self.register_buffer("ids", torch.tensor(ids, dtype=torch.int64), persistent=False)  # (S,)
        self.register_buffer("slots", slots, persistent=False)  # (V,) number of its row, -1 for none
        self.values = nn.Parameter(weight.detach()[list(ids)].float())  # (S, C)

    def embed(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """tokens: (B, T), weight (V, C) -> (B, T, C)."""
        slots = self.slots[tokens]
        trained = F.embedding(slots.clamp_min(0), self.values)
        return torch.where((slots >= 0).unsqueeze(-1), trained, F.embedding(tokens, weight))

    def logits(self, x: Tensor, logits: Tensor) -> Tensor:
        """x: (..., C), the frozen head's logits (..., V) -> the same with the trained rows' in them."""
        return logits.index_copy_(-1, self.ids, F.linear(x, self.values).to(logits.dtype))

    def merged(self, weight: Tensor) -> Tensor:
        """The matrix (V, C) with the trained rows in it."""
        return weight.index_copy(0, self.ids, self.values.to(weight.dtype))

    def as_head(self) -> HeadRows:
        """For `linear_cross_entropy`."""
        return HeadRows(self.ids, self.values)
