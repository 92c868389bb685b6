"""The state of a run: all that its next step depends on, beside weights and optimizer moments."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STATE_SCHEMA = 4
"""Of state.json. 1, which had no number: without guard, skipped_windows and rollbacks. 2: without
base_sha256. 3: with data_sha256, of the only data, in place of data and cooldown_cursor."""
ADDED = {
    "guard": 2,
    "skipped_windows": 2,
    "rollbacks": 2,
    "base_sha256": 3,
    "data": 4,
    "cooldown_cursor": 4,
}
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
    tokenizer_sha256: str = ""
    guard: dict[str, Any] = field(default_factory=dict)
    """`ptbr_slm.train.survival.guards.GuardState` as plain values."""
    skipped_windows: list[list[int]] = field(default_factory=list)
    """[first, last + 1) of the training windows that rollbacks left out."""
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    """The records of the rollbacks (`ptbr_slm.train.events.RolledBack`), as in metrics.jsonl."""
    base_sha256: str = ""
    """Of the model that a tuning began from (`ModelFolder.sha256`); empty in pre-training."""
    data: list[dict[str, Any]] = field(default_factory=list)
    """Which data the steps read, in order: their sha256, and the step and cursor at which they began."""
    cooldown_cursor: int | None = None
    """Where the data of a cooldown began, also where a rollback has led back to before it: their window 0."""

    @property
    def data_sha256(self) -> str:
        """Of the data that the run began with."""
        return str(self.data[0]["sha256"])

    def go_on_from(self, other: TrainState) -> None:
        """Take all that a step of another session has changed; its clock, guards and scaler aside."""
        for name in _PROGRESS:
            setattr(self, name, copy.deepcopy(getattr(other, name)))


_PROGRESS = ("step", "cursor", "tokens", "data", "cooldown_cursor", "skipped_steps", "skipped_windows",
             "rollbacks")  # fmt: skip


def first_data(sha256: str) -> list[dict[str, Any]]:
    """`TrainState.data` of a run that has read one data set only."""
    return [{"sha256": sha256, "step": 0, "cursor": 0}]


def began_with(body: Mapping[str, Any]) -> str | None:
    """The sha256 of the data that a run began with, from its state.json of any schema."""
    data = body.get("data")
    found = data[0].get("sha256") if isinstance(data, list) and data else body.get("data_sha256")
    return found if isinstance(found, str) else None
