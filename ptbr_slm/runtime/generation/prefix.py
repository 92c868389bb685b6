"""Texts that are over and kept their slots, so that one that begins alike need not run that again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

SHORTEST = 8
"""Tokens in common from which on a beginning is worth taking."""


@dataclass(eq=False, slots=True)
class Kept:
    """A slot that nobody uses, and the tokens in it."""

    slot: int
    ids: Ids
    """(T,) all of the tokens whose keys and values the slot holds."""
    solid: int
    """See `Row.solid`."""
    owner: object = None
    """The paused row that comes back for it, or the prompt whose completions still wait."""


class PrefixCache:
    """Kept slots, least recently used first. It only remembers: the engine is the batch's to call."""

    def __init__(self) -> None:
        self._kept: list[Kept] = []

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._kept)

    def __contains__(self, kept: object) -> bool:
        return any(other is kept for other in self._kept)

    def add(self, kept: Kept) -> None:
        """Remember as the most recently used."""
        self._kept.append(kept)

    def remove(self, kept: Kept) -> None:
        """Forget; the slot belongs to the caller again."""
        self._kept.remove(kept)

    def touch(self, kept: Kept) -> None:
        """It was of use: the last to be given up."""
        self._kept.remove(kept)
        self._kept.append(kept)

    def oldest(self) -> Kept:
        """The one to give up first."""
        return self._kept[0]


def common_length(ids: Ids, others: Ids | Sequence[int]) -> int:
    """Tokens that two texts have in common from the start."""
    size = min(len(ids), len(others))
    differ = np.flatnonzero(ids[:size] != np.asarray(others[:size], dtype=np.int64))
    return int(differ[0]) if len(differ) else size
