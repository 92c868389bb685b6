"""SIGTERM and Ctrl-C, counted: the first asks for a clean end, the second for one at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal came while it was allowed to interrupt."""


class StopSignals:
    """Inside `with`, SIGTERM and Ctrl-C do not end the process. For the main thread only."""

    def __init__(self) -> None:
        self.count = 0
        self.first = 0
        """The number of the first signal; 0 before."""
        self._interrupting = False
        self._came = threading.Event()
        self._former: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Inside, a signal raises `Interrupted`, one that came before at once."""
        self._interrupting = True
        try:
            if self.count:
                raise Interrupted
            yield
        finally:
            self._interrupting = False

    def wait(self, seconds: float) -> None:
        """Return once a signal came, or after so many seconds."""
        self._came.wait(seconds)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.first = self.first or number
        self.count += 1
        self._came.set()
        if self._interrupting:
            raise Interrupted
