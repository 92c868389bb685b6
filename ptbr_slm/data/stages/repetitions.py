"""Sequences of 2 to 10 tokens that a text repeats.

Gopher, table A1 (Rae et al. 2021, arXiv:2112.11446), as datatrove 0.10 counts them
(`gopher_repetition_filter.py`).
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


class _Level(NamedTuple):
    """The sequences of one length that occur twice or more."""

    places: Places
    """Where one begins, ascending."""
    numbers: Places
    """Which it is: the same number at each of its places."""
    top: int
    """The first place of the most frequent one, of those that are equally frequent the first in the text."""
    occurrences: int
    """How often that one occurs."""


class Repetitions:
    """Repeated sequences of tokens, by the share of the text's characters that they are.

    A sequence of n tokens is numbered by its first n - 1 and its last, so that no hash is needed; a longer
    sequence is sought only where the shorter one is repeated.
    """

    MAX_N = 10

    def __init__(self, numbers: Places, lengths: npt.NDArray[np.int32], characters: int) -> None:
        """numbers, lengths: (tokens,) which token, and its characters. characters: of the whole text."""
        self._numbers = numbers
        self._characters = characters
        self._ends = np.zeros(len(numbers) + 1, np.int64)
        np.cumsum(lengths, out=self._ends[1:])

    @cached_property
    def _levels(self) -> dict[int, _Level]:
        """n -> its sequences; without the n of which no sequence is repeated."""
        levels: dict[int, _Level] = {}
        different = int(self._numbers.max(initial=0)) + 1
        places, numbers = np.arange(len(self._numbers)), self._numbers
        for n in range(2, self.MAX_N + 1):
            fits = int(np.searchsorted(places, len(self._numbers) - n, side="right"))
            places, numbers = places[:fits], numbers[:fits]
            level = _repeated(places, numbers * different + self._numbers[places + n - 1])
            if level is None:
                break
            levels[n] = level
            places, numbers = level.places, level.numbers
        return levels

    def top_share(self, n: int) -> float:
        """Share of characters in the most frequent n-gram, all occurrences, the spaces inside counted."""
        if len(self._numbers) < n:
            return 0.0
        level = self._levels.get(n)
        place, count = (level.top, level.occurrences) if level else (0, 1)
        return (int(self._ends[place + n] - self._ends[place]) + n - 1) * count / self._characters

    def repeated_share(self, n: int) -> float:
        """Share of characters in n-grams that occurred before, from left to right without overlap."""
        level = self._levels.get(n)
        if level is None:
            return 0.0
        total = end = 0
        seen: set[int] = set()
        for place, number in zip(level.places.tolist(), level.numbers.tolist(), strict=True):
            if place < end:
                continue
            if number in seen:
                total += int(self._ends[place + n] - self._ends[place])
                end = place + n
            else:
                seen.add(number)
        return total / max(self._characters, 1)


def _repeated(places: Places, keys: Places) -> _Level | None:
    """What of `keys`, one for each of `places`, is there twice or more; None for nothing."""
    order = np.argsort(keys)
    ordered = keys[order]
    differs = ordered[1:] != ordered[:-1]
    if differs.all():
        return None
    edges = np.flatnonzero(differs) + 1
    counts = np.diff(edges, prepend=0, append=len(keys))
    groups = np.repeat(np.arange(len(counts)), counts)
    sizes = counts[groups]
    count = int(counts.max())
    which = np.full(len(keys), -1)
    which[order[sizes > 1]] = groups[sizes > 1]
    repeated = np.flatnonzero(which >= 0)
    return _Level(places[repeated], which[repeated], int(places[order[sizes == count].min()]), count)
