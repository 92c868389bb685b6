"""The learning rate as a pure function of the step: nothing to save, nothing to restart on resume.

A WSD schedule can also be cooled down on demand, at the end of a session (`train.session`): its
rate is then `lr_factor` of the stable phase times `cooldown_factor` of the share of it that is done.
"""

from __future__ import annotations

import math

from ptbr_slm.train.config import OptimizerConfig, ScheduleConfig


def lr_factor(schedule: ScheduleConfig, step: int, max_steps: int, elapsed_s: float = 0.0) -> float:
    """Factor of the peak learning rate for the optimizer step number `step` (0-based) of `max_steps`.

    elapsed_s: seconds trained so far; counts only where `schedule.minutes` is set.
    """
    warmup = schedule.warmup_steps or 0
    if step < warmup:
        return (step + 1) / warmup
    progress = _progress(schedule, step, max_steps, elapsed_s)
    if schedule.kind == "wsd":
        return cooldown(progress, schedule.cooldown_fraction, schedule.cooldown_shape)
    return cosine(progress, schedule.min_lr_ratio)


def momentum_at(optimizer: OptimizerConfig, step: int) -> float:
    """Muon's momentum in the optimizer step number `step` (0-based).

    It rises evenly from momentum_start (K. Jordan et al., modded-nanogpt, 2024): the first gradients change
    fast, and a long mean of them points where none does any more.
    """
    steps = optimizer.momentum_warmup_steps or 0
    if step >= steps:
        return optimizer.momentum
    return optimizer.momentum_start + (optimizer.momentum - optimizer.momentum_start) * step / steps


def in_cooldown(schedule: ScheduleConfig, step: int, max_steps: int, elapsed_s: float = 0.0) -> bool:
    """Whether this optimizer step, as in `lr_factor`, is one of a planned cooldown: its rate has fallen."""
    if schedule.kind != "wsd" or step < (schedule.warmup_steps or 0):
        return False
    return cooldown(_progress(schedule, step, max_steps, elapsed_s), schedule.cooldown_fraction) < 1.0


def _progress(schedule: ScheduleConfig, step: int, max_steps: int, elapsed_s: float) -> float:
    """Share of the schedule behind its warm-up that is over before this step."""
    if schedule.minutes:
        return min(1.0, elapsed_s / (60 * schedule.minutes))
    warmup = schedule.warmup_steps or 0
    return min(1.0, (step - warmup) / max(1, max_steps - warmup))


def cosine(progress: float, floor: float) -> float:
    """Half a cosine from 1 at progress 0 to `floor` at progress 1 (Loshchilov and Hutter, 2017)."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def cooldown(progress: float, fraction: float, shape: str = "linear") -> float:
    """1 until the last `fraction` of the run, then down to 0 (WSD: Hu et al., 2024, arXiv:2404.06395)."""
    if fraction <= 0:
        return 1.0
    return cooldown_factor(1 - (1 - progress) / fraction, shape)


def cooldown_factor(done: float, shape: str = "linear") -> float:
    """Factor of the stable rate when `done` (0 to 1) of a cooldown is over: 1 before it, 0 after it.

    `linear` falls evenly; `1-sqrt` falls faster at first and spends longer at small rates
    (Hägele et al., 2024, arXiv:2405.18392).
    """
    done = min(1.0, max(0.0, done))
    return 1 - (math.sqrt(done) if shape == "1-sqrt" else done)
