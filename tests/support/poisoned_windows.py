"""A run whose loss spikes: at some windows the tokens are noise, and the update ruins the weights.

PTBR_SLM_TEST_POISON=56:68 python -c "import poisoned_windows; ..."     or: with poisoned(56, 68): ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from ptbr_slm.train import trainer
from ptbr_slm.train.batches import MicroBatch

VARIABLE = "PTBR_SLM_TEST_POISON"
"""FIRST:LAST, for a process that only imports this module."""


@contextmanager
def poisoned(first: int, last: int, vocab_size: int = 300) -> Iterator[None]:
    """While the block runs, steps that read the windows `first` to `last` - 1 are poisonous."""
    choose, step = trainer.remaining_windows, trainer.optimizer_step
    read: list[int] = []

    def choosing(*arguments: Any) -> Any:
        windows, cursor = choose(*arguments)
        read[:] = [window for piece in windows for window in piece]
        return windows, cursor

    def stepping(model: Any, optimizer: Any, batches: Sequence[MicroBatch], **keywords: Any) -> Any:
        if any(first <= window < last for window in read):
            draw = np.random.default_rng(read[0])
            batches = [
                MicroBatch.of_windows(draw.integers(0, vocab_size, (len(b), b.tokens.shape[1] + 1)))
                for b in batches
            ]
            for group in optimizer.param_groups:
                group["lr"] = 2.0
        return step(model, optimizer, batches, **keywords)

    with (
        mock.patch.object(trainer, "remaining_windows", choosing),
        mock.patch.object(trainer, "optimizer_step", stepping),
    ):
        yield


if VARIABLE in os.environ:
    _first, _last = map(int, os.environ[VARIABLE].split(":"))
    _for_ever = poisoned(_first, _last)  # a context that nothing refers to would be closed at once
    _for_ever.__enter__()
