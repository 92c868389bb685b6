"""The training batches: in which order the text is read, and what a micro-batch is.

The order is a pure function of (seed, epoch, position), and one integer says where a run is: the cursor
counts training windows consumed since the run began. A resume, another micro-batch or another number of
devices sees the same windows. Nothing is stored: a Feistel network permutes the windows of an epoch, and a
cycle walk keeps the result inside their number (Black and Rogaway, 2002).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ptbr_slm.data.prepared import Split
from ptbr_slm.model import IGNORE, Llama

_ROUNDS = 4
_U64 = np.uint64


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Sequences that go through the model at once, as NumPy arrays, or as tensors (`to`)."""

    tokens: npt.NDArray[np.int64]
    """(B, T) the model's input."""
    targets: npt.NDArray[np.int64]
    """(B, T) what to predict after each token; `IGNORE` counts neither in the loss nor in its divisor."""
    document_ids: npt.NDArray[np.int32] | None = None
    """(B, T) the document of each token; tokens see only those of their own. None: they see all before."""

    @classmethod
    def of_windows(
        cls, windows: npt.NDArray[np.int64], document_ids: npt.NDArray[np.int32] | None = None
    ) -> MicroBatch:
        """windows, document_ids: (B, T + 1); each token's target is the one after it."""
        inputs = None if document_ids is None else document_ids[:, :-1]
        return cls(windows[:, :-1], windows[:, 1:], inputs)

    def __len__(self) -> int:
        """Sequences, B."""
        return len(self.tokens)

    def __getitem__(self, part: slice) -> MicroBatch:
        """Some of the sequences."""
        documents = None if self.document_ids is None else self.document_ids[part]
        return MicroBatch(self.tokens[part], self.targets[part], documents)

    @property
    def target_tokens(self) -> int:
        """Targets that count."""
        return int((self.targets != IGNORE).sum())

    @property
    def divisor(self) -> int:
        """What a step divides the sum of its losses by."""
        return self.target_tokens

    def split(self, batch_size: int) -> list[MicroBatch]:
        """In micro-batches of at most `batch_size` sequences."""
        return [self[start : start + batch_size] for start in range(0, len(self), batch_size)]

    def to(self, device: torch.device) -> DeviceBatch:
        """On the device; the host does not wait for a GPU."""
        documents = None if self.document_ids is None else to_device(self.document_ids, device)
        return DeviceBatch(to_device(self.tokens, device), to_device(self.targets, device), documents)


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """A micro-batch on its device."""

    tokens: Tensor
    """(B, T) int64."""
    targets: Tensor
    """(B, T) int64."""
    document_ids: Tensor | None = None
    """(B, T) int32."""

    def loss_sum(self, model: Llama) -> Tensor:
        """What the micro-batch trains: a sum in nats, fp32, over its `MicroBatch.divisor`."""
        return model.loss_sum(self.tokens, self.targets, self.document_ids)

    def without_targets(self) -> DeviceBatch:
        """The same input, of which no target counts."""
        return DeviceBatch(self.tokens, torch.full_like(self.targets, IGNORE), self.document_ids)


class BatchSource(Protocol):
    """The training part of the data as micro-batches. All that trains or measures a training reads here."""

    def sequences(self, windows: Sequence[range], share: slice = slice(None)) -> MicroBatch:
        """The sequences of these windows of the run, in order; of all of them only those in `share`.

        The same windows give the same sequences: their order is a pure function of the run's settings.
        """


class TextBatches:
    """The windows of prepared text, a `BatchSource`."""

    def __init__(self, split: Split, *, seq_len: int, seed: int, document_mask: bool = False) -> None:
        """document_mask: give the document of each token, so that documents do not see each other.

        split needs more than seq_len tokens.
        """
        self.order = WindowOrder(split.tokens, seq_len, seed)
        self._split, self._documents = split, document_mask

    def sequences(self, windows: Sequence[range], share: slice = slice(None)) -> MicroBatch:
        """As `BatchSource.sequences`.

        Raises E_DATA_CORRUPT for a token that is not in the vocabulary.
        """
        starts = self.starts(windows, share)
        length = self.order.seq_len + 1
        read = [self._split.read(start, start + length) for start in starts.tolist()]
        documents = self._split.document_ids(starts, length) if self._documents else None
        return MicroBatch.of_windows(np.stack(read), documents)

    def starts(self, windows: Sequence[range], share: slice = slice(None)) -> npt.NDArray[np.int64]:
        """(B,) the first token of each of these windows."""
        return np.concatenate([self.order.starts(piece.start, len(piece)) for piece in windows])[share]


def remaining_windows(cursor: int, count: int, skipped: Sequence[Sequence[int]]) -> tuple[list[range], int]:
    """The next `count` windows from `cursor` on that are not in `skipped`, and the cursor after them.

    skipped: [first, last + 1) of the windows that a rollback left out.
    """
    ranges: list[range] = []
    while count:
        inside = [stop for start, stop in skipped if start <= cursor < stop]
        if inside:
            cursor = max(inside)
            continue
        until = min([start for start, _ in skipped if start > cursor], default=cursor + count)
        piece = range(cursor, min(until, cursor + count))
        ranges.append(piece)
        cursor, count = piece.stop, count - len(piece)
    return ranges, cursor


def random_batch(
    vocab_size: int, batch_size: int, seq_len: int, *, seed: int = 0, documents: int = 0
) -> MicroBatch:
    """A micro-batch of random tokens, for measurements. documents: in each sequence; 0: without a mask."""
    draw = np.random.default_rng(seed)
    windows = draw.integers(0, vocab_size, (batch_size, seq_len + 1), dtype=np.int64)
    ids = None
    if documents:
        ids = np.sort(draw.integers(0, documents, windows.shape, dtype=np.int32), axis=1)
    return MicroBatch.of_windows(windows, ids)


def to_device(array: npt.NDArray[np.number[Any]], device: torch.device) -> Tensor:
    """The array as a tensor on the device; the host does not wait for a GPU."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


class WindowOrder:
    """Windows of seq_len + 1 tokens (inputs and targets overlap by seq_len) out of `tokens` tokens, shuffled.

    Each epoch cuts the text at another offset, so that its windows are new ones. Needs tokens > seq_len.
    """

    def __init__(self, tokens: int, seq_len: int, seed: int) -> None:
        assert tokens > seq_len >= 1
        self.seq_len = seq_len
        self.seed = seed
        self.windows = max(1, tokens // seq_len - 1)
        """Windows of one epoch, the same in all of them."""
        self._slack = min(seq_len - 1, tokens - 1 - self.windows * seq_len)

    def starts(self, cursor: int, count: int) -> npt.NDArray[np.int64]:
        """(count,) first token of the windows number cursor, cursor + 1, ... of the run."""
        result = np.empty(count, np.int64)
        done = 0
        while done < count:
            epoch, position = divmod(cursor + done, self.windows)
            take = min(count - done, self.windows - position)
            keys = epoch_keys(self.seed, epoch)
            order = permute(np.arange(position, position + take), self.windows, keys)
            result[done : done + take] = int(keys[_ROUNDS]) % (self._slack + 1) + order * self.seq_len
            done += take
        return result


def permute(values: npt.NDArray[np.int64], size: int, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """A bijection of range(size), drawn by the first round keys, applied to each of `values`."""
    half = _U64(max(1, ((size - 1).bit_length() + 1) // 2))
    mask = (_U64(1) << half) - _U64(1)
    x = values.astype(_U64)
    outside = np.ones(len(x), bool)
    while outside.any():  # the domain is below 4 * size: under 4 rounds of walking on average
        left, right = x[outside] >> half, x[outside] & mask
        for key in keys[:_ROUNDS]:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        x[outside] = (left << half) | right
        outside = x >= _U64(size)
    return x.astype(np.int64)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al., 2014): every input bit reaches every output bit."""
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


def epoch_keys(seed: int, epoch: int) -> npt.NDArray[np.uint64]:
    """Four round keys and one number for the offset, independent for every seed and epoch."""
    digest = hashlib.blake2b(f"{seed}:{epoch}".encode(), digest_size=8 * (_ROUNDS + 1)).digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)
