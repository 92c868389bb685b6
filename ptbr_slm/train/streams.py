"""Which data a step reads: the run's own, or those of its cooldown (`TrainConfig.cooldown_data`).

The best text of a run is worth most at its end, where the rate falls (MiniCPM, arXiv:2404.06395; SmolLM2,
arXiv:2502.02737). The change comes with the first step of a cooldown, planned or at a session's end, and is
a pure function of the step. The order of each of the two is one of (seed, epoch, position) of its own, so
that a resume, or another number of ranks, sees the same sequences across the change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ptbr_slm.train.batches import BatchSource, MicroBatch
from ptbr_slm.train.events import DataChanged
from ptbr_slm.train.state import TrainState


@dataclass(frozen=True, slots=True)
class Stream:
    """Data, and their identity."""

    batches: BatchSource
    sha256: str


class DataStreams:
    """The data of every step of a run: a `BatchSource` of those that the step reads."""

    def __init__(self, own: Stream, cooldown: Stream | None = None) -> None:
        """cooldown: None where a cooldown reads the run's own."""
        self._own, self._cooldown = own, cooldown
        self._now, self._first = own, 0

    def begin_step(self, state: TrainState, *, cooling: bool) -> DataChanged | None:
        """Choose the data of the step after `state`; where they are not those of the step before, say so.

        cooling: whether the step is part of a cooldown. A change is noted in `state`.
        """
        stream, first = self._own, 0
        if cooling and self._cooldown is not None:
            if state.cooldown_cursor is None:
                state.cooldown_cursor = state.cursor
            stream, first = self._cooldown, state.cooldown_cursor
        self._now, self._first = stream, first
        if state.data and state.data[-1]["sha256"] == stream.sha256:
            return None
        state.data.append({"sha256": stream.sha256, "step": state.step, "cursor": state.cursor})
        return DataChanged(step=state.step, sha256=stream.sha256, cursor=state.cursor)

    def sequences(self, windows: Sequence[range], share: slice = slice(None)) -> MicroBatch:
        """As `BatchSource.sequences`. windows: of the run; those of a cooldown count from its first one."""
        own = [range(piece.start - self._first, piece.stop - self._first) for piece in windows]
        return self._now.batches.sequences(own, share)
