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
AVX-512), so that how a prompt is cut changes no value, and a power of two, for which weight-only products
have a kernel (onnxruntime#29691)."""

SIZES = tuple(GRAIN << power for power in range(5))  # 16, 32, 64, 128, 256
assert SIZES[-1] == PREFILL_CHUNK

_MEMORY = 0.3
"""Weight of the newest measurement: a few steps after the load changes, the pace has followed."""


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

    def read(self, tokens: int, seconds: float) -> None:
        """A piece of a prompt took so long; credit is spent."""
        size = next((size for size in SIZES if size >= tokens), PREFILL_CHUNK)
        if 4 * tokens >= 3 * size:  # a shorter one tells less than what is known
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
        """Of a piece of `size`; in proportion to the nearest size known, 0 where none is."""
        known = self._piece_s.get(size)
        if known is not None:
            return known
        if not self._piece_s:
            return 0.0 if size == GRAIN else float("inf")
        nearest = min(self._piece_s, key=lambda other: abs(other - size))
        return self._piece_s[nearest] * (size / nearest if size > nearest else 1.0)


def _mean(former: float, newest: float) -> float:
    return newest if not former else former + _MEMORY * (newest - former)
