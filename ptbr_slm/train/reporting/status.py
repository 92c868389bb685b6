"""The pace of a run, and the short text beside its progress bar."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from ptbr_slm.text import number


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """A run after a step, as its progress bar shows it."""

    step: int
    max_steps: int | None
    """None where the clock ends the run."""
    loss: float
    tokens_per_second: float
    run_left_s: float
    """Seconds until the run is over."""
    session_left_s: float | None = None
    """Seconds until the session's last step must be over; None without a limit."""
    gpu_memory_bytes: int | None = None
    scale: float | None = None
    """The loss scale of fp16."""
    skipped_steps: int = 0

    def line(self) -> str:
        """'passo 120/1.000 · perda 3,21 · 2.345 tokens/s · faltam 2min': Brazilian numbers, in one line."""
        of = "" if self.max_steps is None else f"/{number(self.max_steps)}"
        parts = [
            f"passo {number(self.step)}{of}",
            f"perda {number(self.loss, 2)}",
            f"{number(self.tokens_per_second)} tokens/s",
            time_left(self.run_left_s, self.session_left_s),
        ]
        if self.gpu_memory_bytes is not None:
            parts.append(f"{number(self.gpu_memory_bytes / 2**30, 1)} GiB")
        if self.scale is not None:
            parts.append(f"escala 2^{round(math.log2(self.scale))}" if self.scale > 0 else "escala 0")
        if self.skipped_steps:
            parts.append(f"{number(self.skipped_steps)} saltados")
        return " · ".join(parts)


def time_left(run_s: float, session_s: float | None) -> str:
    """Which ends first: the run, or its session (None: without a limit)."""
    if session_s is None or run_s <= session_s:
        return f"faltam {duration(run_s)}"
    return f"faltam {duration(run_s)}, mas a sessão acaba antes, em {duration(session_s)}"


def duration(seconds: float) -> str:
    """3725 -> '1h02min'; 125 -> '2min05s'; 9 -> '9s'."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes:02d}min"
    return f"{minutes}min{rest:02d}s" if minutes else f"{rest}s"
