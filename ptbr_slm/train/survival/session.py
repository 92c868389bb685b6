"""How old the session is, and what still fits into it. No torch here.

A session is what ends without grace: a notebook's 12 hours. Its age is read once from the wall clock or the
kernel; from then on only a clock that never jumps counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ptbr_slm.errors import SlmError
from ptbr_slm.text import number
from ptbr_slm.train.process import BORN_VARIABLE, age_of, clock

REPORT_S = 3.0
"""Seconds for the report at the end."""
MEASURED_LATE = 2.0
"""The measured time of a save is counted so often: the next one may find a busy disk."""

Clock = Callable[[], float]


def session_age(start: str = "") -> Clock:
    """A clock of the seconds since the session began; `start` as in `TrainConfig.session_start`.

    Raises E_CONFIG where `start` is no time, or lies in the future.
    """
    born = _born(start)
    return lambda: clock() - born


@dataclass(slots=True)
class Deadline:
    """Whether another step still fits into the session, with room for all that has to follow it."""

    limit_s: float | None
    """Allowed age of the session in seconds; None: no limit."""
    age: Clock
    """Its age now."""
    began_s: float = 0.0
    """Its age when training began."""
    cooldown_fraction: float = 0.0
    """Share of the training time of this session in which a branch cools down; 0: no branch."""

    def reached(self, step_s: float, save_s: float, evaluation_s: float = 0.0) -> bool:
        """step_s: of the slowest recent step; save_s, evaluation_s: of the last save and evaluation."""
        return self.limit_s is not None and self.age() + step_s > self.end(save_s, evaluation_s)

    def cooling(self, step_s: float, save_s: float, evaluation_s: float = 0.0) -> float | None:
        """Seconds that a branch which begins now would have; None while it is too early or none is wanted."""
        if self.limit_s is None or not self.cooldown_fraction:
            return None
        end = self.end(save_s, evaluation_s)
        begin = end - self.cooldown_fraction * max(0.0, end - self.began_s)
        # The save of the stable phase comes first.
        if self.age() + step_s + MEASURED_LATE * save_s <= begin:
            return None
        return end - self.age()

    def end(self, save_s: float, evaluation_s: float) -> float:
        """The age at which the last step must be over."""
        assert self.limit_s is not None
        return self.limit_s - MEASURED_LATE * save_s - evaluation_s - REPORT_S


def _born(start: str) -> float:
    """When the session began, on `clock`."""
    if start == "kaggle":
        return clock() - age_of("1")
    if start:
        age = time.time() - _seconds_since_1970(start)
        if age < 0:
            raise _no_time(start, f"fica {number(-age)} segundos no futuro")
        return clock() - age
    told = os.environ.get(BORN_VARIABLE)
    return float(told) if told else clock() - age_of("self")


def _seconds_since_1970(start: str) -> float:
    try:
        return float(start)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(start).timestamp()  # without a zone: this machine's
    except ValueError as error:
        raise _no_time(start, "não é uma data e hora ISO, segundos desde 1970, nem kaggle") from error


def _no_time(start: str, why: str) -> SlmError:
    return SlmError(
        "E_CONFIG",
        f"o início da sessão, {start!r}, {why}.",
        where="--session-start",
        hint="Exemplos: --session-start kaggle, 2026-11-22T08:00, ou os segundos de date +%s.",
    )
