"""The state of a run: all that its next step depends on, beside weights and optimizer moments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

STATE_SCHEMA = 3
"""Of state.json. 1, which had no number: without guard, skipped_windows and rollbacks. 2: without
base_sha256."""
ADDED = {"guard": 2, "skipped_windows": 2, "rollbacks": 2, "base_sha256": 3}
"""Field -> the schema that brought it; an older checkpoint goes on with its default."""


@dataclass(kw_only=True)
class TrainState:
    """Plain values, kept in a checkpoint's training/state.json."""

    step: int = 0
    """Optimizer steps done."""
    cursor: int = 0
    """Training windows consumed (`ptbr_slm.train.batches`)."""
    tokens: int = 0
    """Target tokens trained on."""
    elapsed_s: float = 0.0
    """Seconds of training, evaluation included, over all sessions."""
    skipped_steps: int = 0
    """Steps whose fp16 gradient overflowed: counted in `step`, without effect on the weights."""
    scaler: dict[str, Any] | None = None
    """GradScaler's state, where there is one."""
    config: dict[str, Any] = field(default_factory=dict)
    """Settings as dotted key -> value."""
    model: dict[str, Any] = field(default_factory=dict)
    """The model's config.json."""
    data_sha256: str = ""
    tokenizer_sha256: str = ""
    guard: dict[str, Any] = field(default_factory=dict)
    """`ptbr_slm.train.survival.guards.GuardState` as plain values."""
    skipped_windows: list[list[int]] = field(default_factory=list)
    """[first, last + 1) of the training windows that rollbacks left out."""
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    """The records of the rollbacks (`ptbr_slm.train.events.RolledBack`), as in metrics.jsonl."""
    base_sha256: str = ""
    """Of the model that a tuning began from (`ModelFolder.sha256`); empty in pre-training."""
