"""Pre-training text among the conversations, so that the model does not forget it (experience replay)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ptbr_slm.train.batches import BatchSource, MicroBatch


class WithReplay:
    """Two sources as one, a `BatchSource`: of any n windows in a row about share * n are text.

    Window w is the floor(share * w)-th of the text where that number rises at w + 1, and otherwise the next
    of the conversations: a pure function of w, as in each source alone.
    """

    def __init__(self, conversations: BatchSource, text: BatchSource, share: float) -> None:
        """share: of the windows, 0 < share < 1. Both sources give sequences of one length."""
        self._conversations, self._text, self._share = conversations, text, share

    def sequences(self, windows: Sequence[range], share: slice = slice(None)) -> MicroBatch:
        """As `BatchSource.sequences`."""
        numbers = np.concatenate([np.arange(piece.start, piece.stop) for piece in windows])[share]
        before, after = self._texts_before(numbers), self._texts_before(numbers + 1)
        is_text = after > before  # (B,)
        parts = []
        for source, chosen, own in (
            (self._conversations, ~is_text, numbers - before),
            (self._text, is_text, before),
        ):
            if chosen.any():
                ranges = [range(number, number + 1) for number in own[chosen].tolist()]
                parts.append((np.flatnonzero(chosen), source.sequences(ranges)))
        return _joined(parts)

    def _texts_before(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many of the windows before each of these are text, in whole numbers: the same anywhere."""
        parts = round(self._share * 2**32)
        return np.array([number * parts >> 32 for number in numbers.tolist()], dtype=np.int64)


def _joined(parts: Sequence[tuple[npt.NDArray[np.int64], MicroBatch]]) -> MicroBatch:
    """One micro-batch of several, each with the places (B,) of its sequences."""
    order = np.argsort(np.concatenate([places for places, _ in parts]))
    tokens = np.concatenate([batch.tokens for _, batch in parts])[order]  # (B, T)
    targets = np.concatenate([batch.targets for _, batch in parts])[order]
    ids = [batch.document_ids for _, batch in parts]
    assert all(piece is not None for piece in ids), "both sources give the documents of their tokens"
    return MicroBatch(tokens, targets, np.concatenate([piece for piece in ids if piece is not None])[order])
