"""What a run that goes on takes from its beginning: each setting that was left to be chosen.

A default may be another in a later version, and some follow from the data or the machine. A run keeps those
that it began with, so that the same command goes on with the same run. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ptbr_slm.train.config.run import TrainConfig
from ptbr_slm.train.config.setting import AUTO

KEPT: Mapping[str, tuple[str, ...]] = {
    "optimizer": ("name", "momentum_warmup_steps"),
    "schedule": ("kind", "warmup_steps"),
}
"""Section -> its settings that a run keeps, where they are left to be chosen."""


EARLIER: Mapping[str, Any] = {"optimizer.momentum_warmup_steps": 0}
"""What versions that did not know a setting did, where its default is something else."""


def as_begun(config: TrainConfig, begun: Mapping[str, Any]) -> TrainConfig:
    """The settings with those that were left open as the run has them. begun: its settings by dotted key.

    What was asked for stays as it was asked: whether it may differ is for `check_unchanged` to say. Of a
    tuning, all that is left open follows from the model and the conversations.
    """
    if config.COMMAND != "train":
        return config
    begun = {**EARLIER, **begun}
    for section, names in KEPT.items():
        held = getattr(config, section)
        found = {name: begun.get(f"{section}.{name}") for name in names if is_open(getattr(held, name))}
        config = replace(config, **{section: replace(held, **_known(found))})
    config = config.with_cooldown()
    if config.max_steps == AUTO:
        config = replace(config, max_steps=begun.get("max_steps", AUTO))
    open_step = config.batch_size == AUTO and config.tokens_per_step is None
    if open_step and begun.get("seq_len") == config.seq_len:
        config = replace(config, tokens_per_step=_step_tokens(begun))
    rate = begun.get("optimizer.learning_rate")
    if config.optimizer.learning_rate is None and config.optimizer.name == begun.get("optimizer.name"):
        config = replace(config, optimizer=replace(config.optimizer, learning_rate=rate))
    return config


def is_open(value: object) -> bool:
    """Whether this value of a setting leaves it to be chosen."""
    return value is None or value == "auto"


def _step_tokens(begun: Mapping[str, Any]) -> int:
    tokens: int = begun["batch_size"] * begun["grad_accum"] * begun["seq_len"]
    return tokens


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}
