"""How many tokens of prompts a step reads beside its decodes (chunked prefill), from measured times.

A step decodes a token for every running text, then reads a piece of a prompt. The piece is the largest whose
expected time is at most that of the decode: a text's time between two tokens doubles at most. Where even
the smallest piece takes longer, it is read once in several steps, so that prompts still get half of the time
and no more.
"""

from __future__ import annotations

from ptbr_slm.runtime.protocol import PREFILL_CHUNK

GRAIN = 16
"""Tokens. Pieces end at multiples of it: a multiple of the rows that any quantised kernel takes at once (2 on
AVX-512), so that how a prompt is cut changes no value."""

SIZES = tuple(range(GRAIN, PREFILL_CHUNK + 1, GRAIN))

_MEMORY = 0.3
"""Weight of the newest measurement: a few steps after the load changes, the pace has followed."""

_HOPE = 0.5
"""What a further token is expected to cost, relative to the mean of those known: a run has a cost of its own
(the weights are read once), so larger pieces are tried until they are known to take too long."""


class PrefillPace:
    """Chooses the piece of each step. All times in seconds."""

    def __init__(self) -> None:
        self._decode_s = 0.0
        """A decode step, lately."""
        self._piece_s: dict[int, float] = {}
        """Each size of `SIZES` that was run, lately."""
        self._credit_s = 0.0
        """Time of decodes that no prompt has had the like of yet."""

    def decoded(self, seconds: float) -> None:
        """A decode step took so long."""
        self._decode_s = _mean(self._decode_s, seconds)
        self._credit_s = min(self._credit_s + seconds, max(self._decode_s, self._expected(GRAIN)))

    def read(self, pieces: list[int], seconds: float) -> None:
        """Pieces of prompts, in tokens, took so long together; credit is spent."""
        size = -(-pieces[0] // GRAIN) * GRAIN
        if len(pieces) == 1 and size in SIZES and 4 * pieces[0] >= 3 * size:
            self._piece_s[size] = _mean(self._piece_s.get(size, 0.0), seconds)
        self._credit_s = max(0.0, self._credit_s - seconds)

    def piece(self, *, decoding: bool) -> int:
        """Tokens of prompts to read now, 0 where it is not yet their turn. decoding: whether texts wait."""
        if not decoding:
            return PREFILL_CHUNK
        fitting = [size for size in SIZES if self._expected(size) <= self._decode_s]
        if fitting:
            return fitting[-1]
        # The tolerance: a credit that fills up in n steps of equal length must not need n + 1.
        return GRAIN if self._credit_s >= 0.95 * self._expected(GRAIN) else 0

    def _expected(self, size: int) -> float:
        """Of a piece of `size`; from the nearest size known, 0 for the smallest where none is."""
        if size in self._piece_s:
            return self._piece_s[size]
        if not self._piece_s:
            return 0.0 if size == GRAIN else float("inf")
        smaller = max((known for known in self._piece_s if known < size), default=None)
        if smaller is None:
            larger = min(self._piece_s)
            return self._piece_s[larger] * size / larger
        return self._piece_s[smaller] * (1 + _HOPE * (size - smaller) / smaller)


def _mean(former: float, newest: float) -> float:
    return newest if not former else former + _MEMORY * (newest - former)
