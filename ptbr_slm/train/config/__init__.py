"""The settings of a training run: frozen dataclasses by section, checked as they are made. No torch here."""

from __future__ import annotations

from ptbr_slm.train.config.begun import as_begun
from ptbr_slm.train.config.defaults import (
    MUON_RATE,
    TOKENS_PER_PARAMETER,
    default_learning_rate,
    default_tokens_per_step,
)
from ptbr_slm.train.config.run import TrainConfig, seq_len_too_long
from ptbr_slm.train.config.sections import (
    CheckpointConfig,
    DataConfig,
    DistillConfig,
    EvaluationConfig,
    GuardConfig,
    ModelOverrides,
    OptimizerConfig,
    ScheduleConfig,
)
from ptbr_slm.train.config.setting import AUTO

__all__ = [
    "AUTO",
    "MUON_RATE",
    "TOKENS_PER_PARAMETER",
    "CheckpointConfig",
    "DataConfig",
    "DistillConfig",
    "EvaluationConfig",
    "GuardConfig",
    "ModelOverrides",
    "OptimizerConfig",
    "ScheduleConfig",
    "TrainConfig",
    "as_begun",
    "default_learning_rate",
    "default_tokens_per_step",
    "seq_len_too_long",
]
