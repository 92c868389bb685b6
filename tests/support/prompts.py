"""Prompts for models that were never trained: as text, and as ids."""

from __future__ import annotations

import numpy as np

PROMPTS = ["O Brasil é", "Era uma vez, numa cidade pequena do interior,", "A"]
"""A short one, a longer one and a single letter: a ragged batch."""


def random_ids(seed: int, size: int) -> list[int]:
    """Token ids from 5 on, above the special tokens, below 300."""
    found: list[int] = np.random.default_rng(seed).integers(5, 300, size).tolist()
    return found
