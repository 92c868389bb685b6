"""What a step costs on this machine, by the tokens that it runs at once, and a guess: measured as they run.

A draft pays where the tokens that it brings cost less than steps of their own. What a pass over two tokens
costs differs by processor, precision and model (1.09 to 1.5 steps in int4), so nothing is assumed.
"""

from __future__ import annotations

from collections import deque

_RECENT = 9
"""Measurements kept of each size; their median outlives a step that something else disturbed."""

_FURTHER = 0.3
"""Steps that each further token is expected to cost before anything was measured."""

_GUESS = 0
"""In the place of a pass's tokens."""

PRIOR = 8
"""Guesses that what was measured elsewhere counts for: in other texts, in a layer's training."""

_MEMORY = 256
"""Guesses that the running acceptance of all texts remembers, about."""


class StepCosts:
    """Times of one engine's steps, one text alone. All in seconds, until `relative`."""

    def __init__(self) -> None:
        self._recent: dict[int, deque[float]] = {}
        self._typical: dict[int, float] = {}
        """The median of each, kept since every step of a text asks for two: a step may be 0.2 ms short."""
        self._acceptance: float | None = None
        self._guesses = PRIOR

    def passed(self, tokens: int, seconds: float) -> None:
        """A pass over so many tokens took so long."""
        recent = self._recent.setdefault(tokens, deque(maxlen=_RECENT))
        recent.append(seconds)
        self._typical[tokens] = sorted(recent)[len(recent) // 2]

    def guessed(self, seconds: float) -> None:
        """A draft layer's guess took so long."""
        self.passed(_GUESS, seconds)

    def acceptance(self, trained: float) -> float:
        """Part of a draft layer's guesses that came true lately, all texts together.

        trained: what its training measured, to begin with.
        """
        if self._acceptance is None:
            self._acceptance = trained
        return self._acceptance

    def came_true(self, part: float) -> None:
        """A draft layer's guess came true (1) or did not (0)."""
        self._guesses = min(self._guesses + 1, _MEMORY)
        known = part if self._acceptance is None else self._acceptance
        self._acceptance = known + (part - known) / self._guesses

    @property
    def guess(self) -> float:
        """What a draft layer's guess costs, in steps of one token; 0 before one was measured."""
        step = self._typical.get(1)
        return self._typical.get(_GUESS, 0.0) / step if step else 0.0

    def relative(self, tokens: int) -> float:
        """What a pass over `tokens` costs, in passes over one token.

        In a line between the sizes that were measured, and from the last two on beyond them.
        """
        step, found = self._typical.get(1), self._typical.get(tokens)
        if step is None:
            return 1 + _FURTHER * (tokens - 1)
        return found / step if found is not None else self._estimated(tokens, step)

    def _estimated(self, tokens: int, step: float) -> float:
        """`relative` of a size that was not measured; step: seconds of one token."""
        known = {size: seconds / step for size, seconds in self._typical.items() if size != _GUESS}
        below = max(size for size in known if size < tokens)
        above = min((size for size in known if size > tokens), default=None)
        if above is not None:
            return known[below] + (known[above] - known[below]) * (tokens - below) / (above - below)
        earlier = max((size for size in known if size < below), default=None)
        slope = _FURTHER
        if earlier is not None:
            slope = max(0.0, (known[below] - known[earlier]) / (below - earlier))
        return known[below] + slope * (tokens - below)
