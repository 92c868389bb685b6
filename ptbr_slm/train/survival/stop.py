"""Reasons to stop before the last step: a signal, or the session's time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any, Literal

from ptbr_slm.errors import Exit
from ptbr_slm.train.process import stop_signals

StopReason = Literal["sigterm", "sighup", "interrupt", "max_time"]

EXIT_OF: dict[StopReason, Exit] = {
    "sigterm": Exit.STOPPED,
    "sighup": Exit.STOPPED,
    "interrupt": Exit.INTERRUPTED,
    "max_time": Exit.STOPPED,
}


_BY_URGENCY: tuple[StopReason | None, ...] = (None, "max_time", "sighup", "sigterm", "interrupt")


def urgency(reason: StopReason | None) -> int:
    """A number for `Ranks.exchange`: 0 for no reason, and more the more pressing it is."""
    return _BY_URGENCY.index(reason)


def most_urgent(urgencies: Iterable[int]) -> StopReason | None:
    """The reason of the largest of these numbers, which all ranks then stop for."""
    return _BY_URGENCY[max(urgencies)]


_REASON_OF: dict[str, StopReason] = {"SIGINT": "interrupt", "SIGTERM": "sigterm", "SIGHUP": "sighup"}


class SignalGuard:
    """While the block runs, SIGTERM, SIGHUP and Ctrl-C ask to stop after the step; a second Ctrl-C stops at
    once.

    A SIGHUP that this process ignores stays ignored: under nohup a run outlives its terminal. Outside the
    main thread (a notebook's worker) signals cannot be caught, and `reason` stays None.
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
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.reason is not None:
            raise KeyboardInterrupt
        self.reason = _REASON_OF[signal.Signals(number).name]
