"""When one text asks the draft layer: while its guesses come true often enough for what they cost.

A guess costs g steps and its check makes the next pass c steps long; with the chance p that it comes true the
text has 1 + p tokens for c + g. That beats one token a step where p > c + g - 1. A text whose guesses fail is
still asked now and then, so that it is noticed when they would not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.drafting.costs import PRIOR, StepCosts

_MEMORY = 64
"""Guesses that the running acceptance remembers, about."""

_PLAIN_FIRST, _PLAIN_EVERY = 2, 64
"""Steps without a guess: the first two of a text, and every 64th, keep the cost of a plain step known."""

_WASTE = 0.005
"""Steps that guesses which do not pay may cost, of those that were made since the last one."""


@dataclass(frozen=True, slots=True)
class DraftScores:
    """What a draft layer expects of the token after the next; overwritten by its next guess."""

    tokens: npt.NDArray[np.int64]
    """(K,) ids that it can guess, rising."""
    scores: npt.NDArray[np.float32]
    """(K,) of each, as logits."""


class LayerDrafter:
    """The decision for one growing text."""

    @classmethod
    def of(cls, acceptance: float | None, use: Literal["auto", "always", "never"]) -> LayerDrafter | None:
        """That of a text of a model with such a layer; None where it has none, or shall not be asked.

        Raises E_SAMPLING where a layer that the model lacks was asked for.
        """
        if acceptance is None and use == "always":
            raise SlmError(
                "E_SAMPLING",
                "este modelo não tem a camada que palpita.",
                where="draft",
                hint="Treine-a com ptbr-slm draft e exporte de novo, ou use --draft auto.",
            )
        return None if acceptance is None or use == "never" else cls(acceptance, always=use == "always")

    def __init__(self, acceptance: float, *, always: bool = False) -> None:
        """acceptance: what the layer's training measured. always: whether every step guesses."""
        self._always = always
        self._acceptance = acceptance
        self._guesses = float(PRIOR)
        self._steps = 0
        self._last = self._next = 0
        """The step of the last guess, and the first that may be the next."""

    def wants(self, costs: StepCosts) -> bool:
        """Whether to guess in this step; to be asked once a step."""
        if self._always:
            return True
        if not self._steps:
            self._acceptance = costs.acceptance(self._acceptance)
        self._steps += 1
        if self._steps < self._next or self._steps <= _PLAIN_FIRST or self._steps % _PLAIN_EVERY == 0:
            return False
        loss = costs.relative(2) + costs.guess - 1 - self._acceptance
        if loss > _WASTE * (self._steps - self._last):
            self._next = self._last + math.ceil(loss / _WASTE)
            return False
        self._last = self._steps
        return True

    def learn(self, drafted: int, accepted: int, costs: StepCosts) -> None:
        """Whether the last guess came true: `accepted` of one."""
        costs.came_true(accepted)
        self._guesses = min(self._guesses + 1, float(_MEMORY))
        self._acceptance += (accepted - self._acceptance) / self._guesses
