"""Bits per byte: how well a model predicts text that it has not seen, whatever its tokenizer.

The one measure of training's evaluation, of an export before it is accepted, and of `verify`:

- The text is cut into windows of `seq_len` targets, end to end, so that each target counts once and is
  predicted from what is before it in its window. Of a long text, windows spread evenly over it are read.
- Special tokens count neither in the nats nor in the bytes: they separate texts and are no part of them.
- The bytes are those of the targets' UTF-8 text. They add up to the text's size (`Tokenizer.target_bytes`).

Unlike perplexity, it can be compared between tokenizers. Two measurements are of the same thing where the
text, `seq_len` and the number of targets agree; `HeldOut.facts` is what manifests record of them. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ptbr_slm.tokenizer import Tokenizer

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

UNCOUNTED = -100
"""A target that does not count: the `ignore_index` of PyTorch's cross-entropy."""
_ROWS_AT_ONCE = 128
"""Rows of logits normalised at once: 16 MiB at 32,000 tokens."""


class TokenIds(Protocol):
    """A text as one long row of token ids, such as a `Split` of prepared data."""

    @property
    def tokens(self) -> int:
        """How many there are."""

    def read(self, start: int, stop: int) -> Ids:
        """(stop - start,) ids."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    """`TokenIds` in memory."""

    ids: Ids
    """(tokens,)"""

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self.ids)

    def read(self, start: int, stop: int) -> Ids:
        """(stop - start,) ids."""
        return self.ids[start:stop]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Windows of a held-out text, chosen once, so that every measurement reads the same."""

    inputs: Ids
    """(windows, T)"""
    targets: Ids
    """(windows, T); special tokens and padding are `UNCOUNTED`."""
    bytes: int
    """UTF-8 bytes of the targets that count."""
    name: str = ""
    """Which text it is, for people and the manifest."""
    data_sha256: str | None = None
    """Of the prepared data that it is the held-out part of."""

    @property
    def counted(self) -> int:
        """Targets that count."""
        return int((self.targets != UNCOUNTED).sum())

    def windows(self) -> Iterator[tuple[Ids, Ids]]:
        """Inputs (T,) and targets (T,) of each window, without padding."""
        for inputs, targets in zip(self.inputs, self.targets, strict=True):
            length = int(np.flatnonzero(targets != UNCOUNTED).max(initial=-1)) + 1
            if length:
                yield inputs[:length], targets[:length]

    def value(self, nats: float) -> float:
        """Bits per byte, where the targets that count cost `nats` in all."""
        return nats / math.log(2) / self.bytes

    def facts(self) -> dict[str, Any]:
        """What a manifest records beside the bits per byte, to tell what they were measured on."""
        return {
            **({} if self.data_sha256 is None else {"data_sha256": self.data_sha256}),
            "seq_len": self.inputs.shape[1],
            "targets": self.counted,
            "bytes": self.bytes,
        }


def held_out_windows(
    text: TokenIds,
    tokenizer: Tokenizer,
    seq_len: int,
    tokens: int,
    *,
    name: str = "",
    data_sha256: str | None = None,
) -> HeldOut | None:
    """About `tokens` targets in windows spread evenly over a text; None where nothing in it counts."""
    if text.tokens < 2:
        return None
    available = math.ceil((text.tokens - 1) / seq_len)
    wanted = min(available, max(1, tokens // seq_len))
    chosen = np.arange(wanted) * available // wanted
    rows = np.full((wanted, seq_len + 1), UNCOUNTED, np.int64)
    for row, window in zip(rows, chosen, strict=True):
        piece = text.read(int(window) * seq_len, min(text.tokens, (int(window) + 1) * seq_len + 1))
        row[: len(piece)] = piece
    inputs, targets = np.maximum(rows[:, :-1], 0), rows[:, 1:].copy()
    targets[np.isin(targets, list(tokenizer.special_ids))] = UNCOUNTED
    size = int(tokenizer.target_bytes(np.maximum(rows, 0))[targets != UNCOUNTED].sum())
    return HeldOut(inputs, targets, size, name, data_sha256) if size else None


@dataclass(frozen=True, slots=True)
class BitsPerByte:
    """The surprise of some text to a model."""

    nats: float
    """Summed over the targets that count."""
    targets: int
    """Targets that count."""
    bytes: int
    """UTF-8 bytes of these targets."""

    @property
    def value(self) -> float:
        """Bits per UTF-8 byte."""
        return self.nats / math.log(2) / self.bytes


def bits_per_byte(logits: Callable[[Sequence[int]], Iterable[Floats]], text: HeldOut) -> BitsPerByte:
    """Measure a model on `text`.

    logits: token ids (T,) -> their logits (T, V), in one part or in several of consecutive positions, so that
    a long window's need not be in memory at once.
    """
    nats = 0.0
    for inputs, targets in text.windows():
        start = 0
        for part in logits(inputs.tolist()):
            wanted = targets[start : start + len(part)]
            counts = wanted != UNCOUNTED
            nats += float(surprises(part, np.where(counts, wanted, 0))[counts].sum())
            start += len(part)
    return BitsPerByte(nats, text.counted, text.bytes)


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
