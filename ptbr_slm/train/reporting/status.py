"""The pace of a run, and the short text beside its progress bar."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from ptbr_slm.text import number

if TYPE_CHECKING:
    from ptbr_slm.train.loop import Trainer


class Pace:
    """Time and tokens of the last 50 steps; evaluation and saving are not in it."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float]] = deque(maxlen=50)

    def add(self, tokens: int, seconds: float) -> None:
        """One step took so long."""
        self._steps.append((tokens, seconds))

    @property
    def tokens_per_second(self) -> float:
        """Over the last steps; 0 before the first."""
        seconds = sum(s for _, s in self._steps)
        return sum(t for t, _ in self._steps) / seconds if seconds else 0.0

    @property
    def step_s(self) -> float:
        """Mean seconds of a step; 0 before the first."""
        return sum(s for _, s in self._steps) / len(self._steps) if self._steps else 0.0

    @property
    def slowest_s(self) -> float:
        """Seconds of the slowest of the last steps; 0 before the first."""
        return max((s for _, s in self._steps), default=0.0)


def status_line(trainer: Trainer, loss: float) -> str:
    """'passo 120/1.000 · perda 3,21 · 2.345 tokens/s · faltam 2min': Brazilian numbers, in one line."""
    minutes = trainer.config.schedule.minutes
    if minutes:
        left_s, steps = 60 * minutes - trainer.elapsed_s, f"passo {number(trainer.state.step)}"
    else:
        left_s = (trainer.config.max_steps - trainer.state.step) * trainer.pace.step_s
        steps = f"passo {number(trainer.state.step)}/{number(trainer.config.max_steps)}"
    parts = [steps, f"perda {number(loss, 2)}", f"{number(trainer.pace.tokens_per_second)} tokens/s"]
    parts.append(time_left(left_s, _session_left_s(trainer)))
    return " · ".join([*parts, *_machine(trainer)])


def _session_left_s(trainer: Trainer) -> float | None:
    """Seconds until the session's last step must be over; None without a limit."""
    deadline = trainer.deadline
    if deadline is None or deadline.limit_s is None:
        return None
    return deadline.end(trainer.save_s, trainer.evaluation_s) - deadline.age()


def time_left(run_s: float, session_s: float | None) -> str:
    """Which ends first: the run, or its session (None: without a limit)."""
    if session_s is None or run_s <= session_s:
        return f"faltam {duration(run_s)}"
    return f"faltam {duration(run_s)}, mas a sessão acaba antes, em {duration(session_s)}"


def _machine(trainer: Trainer) -> list[str]:
    """Memory of a GPU, the loss scale and what was skipped: only where there is such a thing."""
    parts = []
    memory = trainer.gauges.memory_bytes() if trainer.plan.device.type == "cuda" else None
    if memory is not None:
        parts.append(f"{number(memory / 2**30, 1)} GiB")
    scale = trainer.scale
    if scale is not None:
        parts.append(f"escala 2^{round(math.log2(scale))}" if scale > 0 else "escala 0")
    if trainer.state.skipped_steps:
        parts.append(f"{number(trainer.state.skipped_steps)} saltados")
    return parts


def duration(seconds: float) -> str:
    """3725 -> '1h02min'; 125 -> '2min05s'; 9 -> '9s'."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes:02d}min"
    return f"{minutes}min{rest:02d}s" if minutes else f"{rest}s"
