"""What it takes to choose one token away from the sampler: the options that act, and the random number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ptbr_slm.runtime.sampling.selection import Floats


@dataclass(frozen=True, slots=True)
class Draw:
    """One choice of a text without penalties, bias, constraint or log probabilities."""

    temperature: float
    """0 is greedy."""
    top_k: int
    """0 keeps all."""
    top_p: float
    """1 keeps all."""
    min_p: float
    """0 keeps all."""
    uniform: float
    """In [0, 1): where in the running sum of the weights, by id, the token lies."""


GREEDY = Draw(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, uniform=0.0)


class DrawingEngine(Protocol):
    """An engine that may choose tokens where its logits are."""

    draws_tokens: bool
    """Whether it does."""

    def decode_drawn(
        self, rows: Sequence[int], tokens: Sequence[int], draws: Sequence[Draw | None]
    ) -> Sequence[int | Floats]:
        """As `Engine.decode`, with each row's next token by its draw.

        (V,) logits where the host must choose: there is no draw, or it needs more than the engine looks at.
        """
