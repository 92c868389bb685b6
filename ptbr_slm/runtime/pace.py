"""How many tokens of prompts a step reads beside its decodes (chunked prefill), from measured times.

A step decodes a token for every running text, then may read a piece of a prompt. Prompts get at most as much
time as decodes, so that the mean time between two tokens of a text doubles at most. A piece is as large as
that allows in two steps, for the weights are read once for all of its tokens: at 85m int8 sixteen clients
have 24 % more tokens/s with pieces of 64 than of 16. So one gap may be three times the usual one, and the
next is not.
"""

from __future__ import annotations

from ptbr_slm.runtime.protocol import PREFILL_CHUNK

GRAIN = 16
"""Tokens. Pieces end at multiples of it: a multiple of the rows that any quantised kernel takes at once (2 on
AVX-512), so that how a prompt is cut changes no value."""

SIZES = tuple(range(GRAIN, PREFILL_CHUNK + 1, GRAIN))

_MEMORY = 0.3
"""Weight of the newest measurement: a few steps after the load changes, the pace has followed."""

_LONGEST = 2.0
"""Decode steps that one piece may take. Where even the smallest takes more, it waits for more of them."""

_HOPE = 0.75
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
        most = max(_LONGEST * self._decode_s, self._expected(GRAIN))
        self._credit_s = min(self._credit_s + seconds, most)

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
        fitting = [size for size in SIZES if self._expected(size) <= _LONGEST * self._decode_s]
        size = fitting[-1] if fitting else GRAIN
        # The tolerance: a credit that fills up in n steps of equal length must not need n + 1.
        return size if self._credit_s >= 0.95 * self._expected(size) else 0

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
        if size > 2 * smaller:  # grow by steps, so that a try is not far off
            return float("inf")
        return self._piece_s[smaller] * (1 + _HOPE * (size - smaller) / smaller)


def _mean(former: float, newest: float) -> float:
    return newest if not former else former + _MEMORY * (newest - former)
