"""Bits per byte: comparable between models whatever their tokenizers, unlike perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 128
"""Rows of logits normalised at once: 16 MiB at 32,000 tokens."""


@dataclass(frozen=True, slots=True)
class BitsPerByte:
    """The surprise of some text to a model."""

    nats: float
    """Summed over the targets that count."""
    targets: int
    """Tokens predicted, special ones left out."""
    bytes: int
    """UTF-8 bytes of these targets."""

    @property
    def value(self) -> float:
        """Bits per UTF-8 byte."""
        return self.nats / math.log(2) / self.bytes


def bits_per_byte(
    logits: Callable[[Sequence[int]], Floats],
    windows: Sequence[Ids],
    byte_lengths: npt.NDArray[np.int32],
    start_marks: npt.NDArray[np.int32] | None = None,
) -> BitsPerByte:
    """Measure a model on `windows`.

    logits: token ids (T,) -> (T, V), such as `Engine.logits`. windows: each (T + 1,) ids; the last T are
    targets, each predicted from those before it in its window. byte_lengths: (V,), as
    `Tokenizer.byte_lengths`; targets of 0 bytes (special tokens) count neither in the nats nor in the bytes.
    start_marks: (V,), as `Tokenizer.start_marks`; that space at the start of a text is none of its bytes.
    """
    nats, targets, size = 0.0, 0, 0
    for window in windows:
        wanted = window[1:]
        lengths = byte_lengths[wanted]
        surprise = surprises(logits(window[:-1].tolist()), wanted)  # (T,)
        nats += float(surprise[lengths > 0].sum())
        targets += int((lengths > 0).sum())
        size += int(lengths.sum())
        if start_marks is not None:
            size -= int(start_marks[wanted][byte_lengths[window[:-1]] == 0].sum())
    return BitsPerByte(nats, targets, size)


def surprises(logits: Floats, targets: Ids) -> npt.NDArray[np.float64]:
    """-log p(target), in nats: logits (T, V), targets (T,) -> (T,)."""
    result = np.empty(len(targets), dtype=np.float64)
    for start in range(0, len(targets), _ROWS_AT_ONCE):
        rows = logits[start : start + _ROWS_AT_ONCE]
        peak = rows.max(axis=1, keepdims=True)
        total = np.exp(rows - peak).sum(axis=1, dtype=np.float64)
        chosen = rows[np.arange(len(rows)), targets[start : start + len(rows)]]
        result[start : start + len(rows)] = np.log(total) + (peak[:, 0] - chosen)
    return result
