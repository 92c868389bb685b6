"""What it takes to choose one token away from the sampler: the options that act, and the random number."""

from __future__ import annotations

from dataclasses import dataclass


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
