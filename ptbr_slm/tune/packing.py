"""Conversations in rows of one length, and the micro-batches of such rows.

Whole conversations are put into rows by best fit: from long to short, each where it leaves the least space
(best-fit decreasing; Johnson, "Near-optimal bin packing algorithms", 1973). They are sorted within a buffer
of a shuffled order, so that a row does not hold conversations of one length only. What is left of a row is
padding. Conversations of a row do not see each other (`document_ids`), so the loss is that of the unpacked
ones. The rows are a pure function of the lengths, seq_len and the seed, and their order one of (seed, epoch,
position), like the windows of pre-training (`train.batches`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ptbr_slm.eval.bits import UNCOUNTED, HeldOut
from ptbr_slm.model import IGNORE
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.batches import MicroBatch, epoch_keys, permute
from ptbr_slm.tune.examples import Example

_BUFFER = 1 << 14
"""Conversations sorted by length at once."""


class Examples(Protocol):
    """Examples by their number, such as a `ConversationSplit`."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(conversations,) ids of each."""

    @property
    def sha256(self) -> str:
        """Identity of the data that they are a part of."""

    def example(self, number: int) -> Example:
        """Example `number`, from 0."""


class Rows:
    """Which conversations each row holds."""

    def __init__(self, sizes: npt.NDArray[np.int64], seq_len: int, seed: int) -> None:
        """sizes: (conversations,) positions that each fills, 1 to seq_len. Raises ValueError for others."""
        if len(sizes) and not 1 <= sizes.min() <= sizes.max() <= seq_len:
            raise ValueError(f"sizes {sizes.min()}..{sizes.max()} for rows of {seq_len}")
        row_of = _best_fit(sizes, seq_len, seed)
        self.rows = int(row_of.max(initial=-1)) + 1
        self.padding = 1 - float(sizes.sum()) / max(self.rows * seq_len, 1)
        """Share of the positions that hold no conversation."""
        self._members = np.argsort(row_of, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=self.rows))])

    def conversations(self, row: int) -> npt.NDArray[np.int64]:
        """(n,) numbers of the conversations of a row."""
        return self._members[self._starts[row] : self._starts[row + 1]]


def _best_fit(sizes: npt.NDArray[np.int64], seq_len: int, seed: int) -> npt.NDArray[np.int64]:
    """(conversations,) the row of each."""
    count = len(sizes)
    shuffled = permute(np.arange(count), count, epoch_keys(seed, 0)) if count else np.arange(0)
    row_of = np.empty(count, np.int64)
    open_rows: list[array[int]] = [array("q") for _ in range(seq_len + 1)]
    """Space that is left -> the rows that have it."""
    spaces = 0
    """Bit s is set where a row with space s is open."""
    rows = 0
    for start in range(0, count, _BUFFER):
        part = shuffled[start : start + _BUFFER]
        part = part[np.argsort(-sizes[part], kind="stable")]
        for number, size in zip(part.tolist(), sizes[part].tolist(), strict=True):
            fitting = spaces >> size
            if fitting:
                space = size + (fitting & -fitting).bit_length() - 1
                row = open_rows[space].pop()
                if not open_rows[space]:
                    spaces ^= 1 << space
            else:
                space, row = seq_len, rows
                rows += 1
            row_of[number] = row
            left = space - size
            if left:
                open_rows[left].append(row)
                spaces |= 1 << left
    return row_of


class ConversationBatches:
    """Conversations as micro-batches: window w of the run is a row of epoch w // rows."""

    def __init__(self, split: Examples, *, seq_len: int, seed: int, pad_id: int) -> None:
        """split needs a conversation, none of which fills more than seq_len positions. pad_id: any token."""
        self._split, self._seq_len, self._seed, self._pad_id = split, seq_len, seed, pad_id
        self._rows = Rows(split.lengths - 1, seq_len, seed)

    @property
    def rows(self) -> int:
        """Rows of one epoch."""
        return self._rows.rows

    @property
    def padding(self) -> float:
        """Share of the positions that hold no conversation."""
        return self._rows.padding

    def sequences(self, windows: Sequence[range], share: slice = slice(None)) -> MicroBatch:
        """The rows of these windows of the run, in order; of all of them only those in `share`.

        Raises E_DATA_CORRUPT for a token that is not in the vocabulary.
        """
        numbers = np.concatenate([np.arange(piece.start, piece.stop) for piece in windows])[share]
        return self.batch([self._row(window) for window in numbers.tolist()])

    def batch(self, rows: Sequence[int]) -> MicroBatch:
        """Rows by their number. A row's conversations are numbered from 0, its padding is one more."""
        shape = len(rows), self._seq_len
        tokens = np.full(shape, self._pad_id, np.int64)  # (B, T)
        targets = np.full(shape, IGNORE, np.int64)
        documents = np.zeros(shape, np.int32)
        for at, row in enumerate(rows):
            start = 0
            for document, number in enumerate(self._rows.conversations(row).tolist()):
                example = self._split.example(number)
                stop = start + len(example.ids) - 1
                tokens[at, start:stop] = example.ids[:-1]
                targets[at, start:stop] = np.where(example.target[1:], example.ids[1:], IGNORE)
                documents[at, start:stop] = document
                documents[at, stop:] = document + 1
                start = stop
        return MicroBatch(tokens, targets, documents)

    def _row(self, window: int) -> int:
        epoch, position = divmod(window, self.rows)
        return int(permute(np.array([position]), self.rows, epoch_keys(self._seed, epoch))[0])


def held_out(
    split: Examples, tokenizer: Tokenizer, seq_len: int, tokens: int, *, name: str = "", pad_id: int = 0
) -> HeldOut | None:
    """About `tokens` positions of packed rows, spread evenly; None where nothing in them counts.

    As everywhere in `eval.bits`, special tokens count neither in the nats nor in the bytes: the token that
    ends a turn is no text, and is measured by whether answers end.
    """
    batches = (
        ConversationBatches(split, seq_len=seq_len, seed=0, pad_id=pad_id) if len(split.lengths) else None
    )
    if batches is None:
        return None
    wanted = min(batches.rows, max(1, tokens // seq_len))
    batch = batches.batch((np.arange(wanted) * batches.rows // wanted).tolist())
    targets = np.where(np.isin(batch.targets, list(tokenizer.special_ids)), UNCOUNTED, batch.targets)
    counting = targets != UNCOUNTED
    sizes, marks = tokenizer.byte_lengths, tokenizer.start_marks  # as in Tokenizer.target_bytes
    learnt, before = targets[counting], batch.tokens[counting]
    size = int((sizes[learnt] - marks[learnt] * (sizes[before] == 0)).sum())
    if not size:
        return None
    kept = counting.any(axis=1)
    assert batch.document_ids is not None
    return HeldOut(
        batch.tokens[kept],
        targets[kept],
        size,
        name,
        data_sha256=split.sha256,
        document_ids=batch.document_ids[kept],
    )
