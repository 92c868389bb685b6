"""Optimizers, chosen by `OptimizerConfig.name`: adamw, adamw8bit or muon, a file each.

All hold their whole state from the start: a step allocates next to nothing, so that running out of memory
happens before a weight changes, if at all.
"""

from __future__ import annotations

from ptbr_slm.train.optim.build import build_optimizer, set_learning_rate, set_momentum
from ptbr_slm.train.optim.state import deferred, deferred_state, load_optimizer_arrays, optimizer_arrays

__all__ = [
    "build_optimizer",
    "deferred",
    "deferred_state",
    "load_optimizer_arrays",
    "optimizer_arrays",
    "set_learning_rate",
    "set_momentum",
]
