"""The session of a run: its age, what still fits into it, and the signals that end it. No torch here.

A session is one process's work on a run, in a notebook that is stopped after 12 hours. Its age is read once
from the wall clock or the kernel; from then on only a clock that never jumps counts.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import Any, Literal

from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.text import number
from ptbr_slm.train.process import SESSION_START_VARIABLE, age_of, clock, stop_signals

StopReason = Literal["sigterm", "sighup", "interrupt", "max_time"]

EXIT_OF: dict[StopReason, Exit] = {
    "sigterm": Exit.STOPPED,
    "sighup": Exit.STOPPED,
    "interrupt": Exit.INTERRUPTED,
    "max_time": Exit.STOPPED,
}

_BY_URGENCY: tuple[StopReason | None, ...] = (None, "max_time", "sighup", "sigterm", "interrupt")

REPORT_S = 3.0
"""Seconds for the report at the end."""
SAVE_TIME_FACTOR = 2.0
"""Times that the measured duration of a save is counted: the disk may be busy at the next one."""

Clock = Callable[[], float]


def session_age(start: str = "") -> Clock:
    """A clock of the seconds since the session began; `start` as in `TrainConfig.session_start`.

    Raises E_CONFIG where `start` is no time, or lies in the future.
    """
    began = _session_start(start)
    return lambda: clock() - began


@dataclass(slots=True)
class Deadline:
    """Whether another step still fits into the session, with the saves and the evaluation after it."""

    limit_s: float | None
    """Allowed age of the session in seconds; None: no limit."""
    age: Clock
    """Its age now."""
    began_s: float = 0.0
    """Its age when training began."""
    last_part: float = 0.0
    """Share of the training time of this session, its last, in which a branch cools down or weights are
    averaged; 0: neither."""
    evaluations: int = 1
    """How many the end has to have time for."""

    def reached(self, step_s: float, save_s: float, evaluation_s: float = 0.0) -> bool:
        """step_s: of the slowest recent step; save_s, evaluation_s: of the last save and evaluation."""
        return self.limit_s is not None and self.age() + step_s > self.end(save_s, evaluation_s)

    def in_last_part(self, step_s: float, save_s: float, evaluation_s: float = 0.0) -> float | None:
        """Seconds that a branch which begins now would have; None while it is too early or none is wanted."""
        if self.limit_s is None or not self.last_part:
            return None
        end = self.end(save_s, evaluation_s)
        begin = end - self.last_part * max(0.0, end - self.began_s)
        # The save of the stable phase comes first.
        if self.age() + step_s + SAVE_TIME_FACTOR * save_s <= begin:
            return None
        return end - self.age()

    def left(self, save_s: float, evaluation_s: float) -> float | None:
        """Seconds until the last step must be over; None without a limit."""
        return None if self.limit_s is None else self.end(save_s, evaluation_s) - self.age()

    def end(self, save_s: float, evaluation_s: float) -> float:
        """The age at which the last step must be over."""
        assert self.limit_s is not None
        return self.limit_s - SAVE_TIME_FACTOR * save_s - self.evaluations * evaluation_s - REPORT_S


def urgency(reason: StopReason | None) -> int:
    """A number for `Ranks.exchange`: 0 for no reason, and more the more pressing it is."""
    return _BY_URGENCY.index(reason)


def most_urgent(urgencies: Iterable[int]) -> StopReason | None:
    """The reason of the largest of these numbers, which all ranks then stop for."""
    return _BY_URGENCY[max(urgencies)]


_REASON_OF: dict[str, StopReason] = {"SIGINT": "interrupt", "SIGTERM": "sigterm", "SIGHUP": "sighup"}


class StopBeforeTraining(BaseException):
    """SIGTERM or SIGHUP reached a rank that was still preparing: nothing to save."""


def stop_preparing(number: int, frame: FrameType | None) -> None:
    """The handler of a launched rank's signals until its `SignalGuard` is entered. Raises
    KeyboardInterrupt for Ctrl-C, and StopBeforeTraining.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    for repeated in set(stop_signals()) - {signal.SIGINT}:  # a closing terminal sends it twice
        signal.signal(repeated, signal.SIG_IGN)
    raise StopBeforeTraining


class SignalGuard:
    """While the block runs, SIGTERM, SIGHUP and Ctrl-C ask to stop after the step; a second Ctrl-C stops at
    once.

    A SIGHUP that this process ignores stays ignored: under nohup a run outlives its terminal. Outside the
    main thread (a notebook's worker) signals cannot be caught, and `reason` stays None. After the block the
    former handlers return, but `stop_preparing` does not: a signal that reaches a rank which has saved and
    is about to answer, because another rank got it first, would turn the answer into "nothing was trained".
    """

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SignalGuard:
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._previous[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *exception: object) -> None:
        for caught, handler in self._previous.items():
            signal.signal(caught, signal.SIG_IGN if handler is stop_preparing else handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason is not None:
            raise KeyboardInterrupt
        self.reason = _REASON_OF[signal.Signals(number).name]


def _session_start(start: str) -> float:
    """When the session began, on `clock`."""
    if start == "kaggle":
        return clock() - age_of("1")
    if start:
        age = time.time() - _seconds_since_1970(start)
        if age < 0:
            raise _no_time(start, f"fica {number(-age)} segundos no futuro")
        return clock() - age
    given = os.environ.get(SESSION_START_VARIABLE)
    return float(given) if given else clock() - age_of("self")


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
