"""Bits per byte: how well a model predicts text that it has not seen, whatever its tokenizer.

The one measure of training's evaluation, of an export before it is accepted, of `verify` and of `eval`:

- The text is read in windows of `seq_len` tokens that overlap by half: each target counts once, in the window
  that has at least `seq_len` / 2 tokens before it (the first window's, all that there are). Without the
  overlap the beginning of each window is predicted from next to nothing, and a model with a shorter context
  looks worse than it is. Of a long text, windows spread evenly over it are read.
- Special tokens count neither in the nats nor in the bytes: they separate texts and are no part of them.
- The bytes are those of the targets' UTF-8 text. They add up to the text's size (`Tokenizer.target_bytes`).

Unlike perplexity, it can be compared between tokenizers. Two measurements are of the same thing where the
text, `seq_len` and the number of targets agree; `HeldOut.facts` is what manifests record of them. Where the
text's documents are known, `document_nats` gives each one's share: documents are the units of an interval,
since the tokens of one document are not independent. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    documents: Ids | None = None
    """(windows, T) the document of each target, numbered from 0; None where documents are not known."""
    target_bytes: Ids | None = None
    """(windows, T) UTF-8 bytes of each target that counts, 0 elsewhere; with `documents`."""
    data_sha256: str | None = None
    """Of the prepared data that it is the held-out part of."""
    document_ids: npt.NDArray[np.int32] | None = None
    """(windows, T) where a window holds several texts that must not see each other, the text of each input,
    ascending; None where a window is one text."""

    @property
    def counted(self) -> int:
        """Targets that count."""
        return int((self.targets != UNCOUNTED).sum())

    def windows(self) -> Iterator[tuple[Ids, Ids]]:
        """Inputs (T,), targets (T,) of each window without padding; of each text where it holds several."""
        for index, (inputs, targets) in enumerate(zip(self.inputs, self.targets, strict=True)):
            texts = np.zeros(1, np.int32) if self.document_ids is None else self.document_ids[index]
            edges = [0, *(np.flatnonzero(np.diff(texts)) + 1).tolist(), len(inputs)]
            for start, stop in pairwise(edges):
                length = int(np.flatnonzero(targets[start:stop] != UNCOUNTED).max(initial=-1)) + 1
                if length:
                    yield inputs[start : start + length], targets[start : start + length]

    def value(self, nats: float) -> float:
        """Bits per byte, where the targets that count cost `nats` in all."""
        return nats / math.log(2) / self.bytes

    def facts(self) -> dict[str, Any]:
        """What a manifest records beside the bits per byte, to tell what they were measured on."""
        seq_len = self.inputs.shape[1]
        return {
            **({} if self.data_sha256 is None else {"data_sha256": self.data_sha256}),
            "seq_len": seq_len,
            "overlap": seq_len - _step(seq_len) if self.document_ids is None else 0,
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
    offsets: Ids | None = None,
) -> HeldOut | None:
    """About `tokens` targets in windows spread evenly over a text; None where nothing in it counts.

    offsets: (documents + 1,) where each document begins in the text and where the last one ends, for
    `document_nats`.
    """
    blocks = _blocks(text.tokens - 1, seq_len, tokens)
    if not blocks:
        return None
    rows = np.full((len(blocks), seq_len + 1), UNCOUNTED, np.int64)
    counts = np.zeros((len(blocks), seq_len), dtype=bool)
    starts = np.zeros(len(blocks), np.int64)
    for index, (start, stop) in enumerate(blocks):
        starts[index] = begin = max(0, stop - seq_len)
        piece = text.read(begin, stop + 1)
        rows[index, : len(piece)] = piece
        counts[index, start - begin : stop - begin] = True
    inputs, targets = np.maximum(rows[:, :-1], 0), rows[:, 1:].copy()
    targets[~counts | np.isin(targets, list(tokenizer.special_ids))] = UNCOUNTED
    sizes = np.where(targets == UNCOUNTED, 0, tokenizer.target_bytes(np.maximum(rows, 0)))
    if not sizes.any():
        return None
    counting = (targets != UNCOUNTED).any(axis=1)  # a text's last window may hold nothing but its end
    inputs, targets, sizes, starts = inputs[counting], targets[counting], sizes[counting], starts[counting]
    documents = None
    if offsets is not None:
        places = starts[:, None] + 1 + np.arange(seq_len)  # of each target in the text
        documents = np.searchsorted(offsets, places, side="right") - 1
    total = int(sizes.sum())
    return HeldOut(inputs, targets, total, name, documents, None if offsets is None else sizes, data_sha256)


def _blocks(targets: int, seq_len: int, wanted: int) -> list[tuple[int, int]]:
    """Blocks of consecutive targets, each counted in a window of its own: seq_len in the first, then half.

    targets: how many the text has. The blocks hold about `wanted` of them, and at least one block.
    """
    if targets < 1:
        return []
    step = _step(seq_len)
    edges = [0, *range(min(seq_len, targets), targets, step), targets]
    available = len(edges) - 1
    chosen = available if wanted >= targets else min(available, max(1, (wanted - seq_len) // step + 1))
    picked = np.arange(chosen) * available // chosen
    return [(edges[index], edges[index + 1]) for index in picked.tolist()]


def _step(seq_len: int) -> int:
    """Targets that a window counts, all but the first of a text."""
    return max(1, seq_len // 2)


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
    nats = sum(
        float(surprise.sum())
        for inputs, targets in text.windows()
        for _, surprise in _counted(logits, inputs, targets)
    )
    return BitsPerByte(nats, text.counted, text.bytes)


def _counted(
    logits: Callable[[Sequence[int]], Iterable[Floats]], inputs: Ids, targets: Ids
) -> Iterator[tuple[Ids, npt.NDArray[np.float64]]]:
    """Positions that count and their nats, part by part of a window: inputs (T,), targets (T,)."""
    start = 0
    for part in logits(inputs.tolist()):
        counts = np.flatnonzero(targets[start : start + len(part)] != UNCOUNTED)
        yield start + counts, surprises(part[counts], targets[start + counts])
        start += len(part)


def document_nats(
    logits: Callable[[Sequence[int]], Iterable[Floats]], text: HeldOut
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Nats and bytes of each document that has targets: (documents,), (documents,), in the text's order.

    logits: as in `bits_per_byte`. Raises ValueError where the text's documents are not known.
    """
    if text.documents is None or text.target_bytes is None:
        raise ValueError("the documents of this text are not known")
    nats = np.zeros(int(text.documents.max()) + 1)
    for window, documents in zip(text.windows(), text.documents, strict=True):
        for start, surprise in _counted(logits, *window):
            np.add.at(nats, documents[start], surprise)
    sizes = np.bincount(text.documents.ravel(), text.target_bytes.ravel(), minlength=len(nats))
    read = sizes > 0
    return nats[read], sizes[read].astype(np.int64)


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
