"""SIGTERM and Ctrl-C, counted: the first asks for a clean end, the second for one at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType


class Interrupted(BaseException):
    """A signal came while it was allowed to interrupt."""


class StopSignals:
    """Inside `with`, SIGTERM and Ctrl-C do not end the process; the former handlers return at its end.

    Outside the main thread Python allows no handlers: there, signals are not counted.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first = 0
        """The number of the first signal; 0 before."""
        self._interrupting = False
        # Not an Event: the handler runs in the thread that waits, and Event.set() in Event.wait() can wait
        # forever for a lock that its own thread holds. SimpleQueue.put() is made to be called there.
        self._came: SimpleQueue[int] = SimpleQueue()
        self._former: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
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
        """Return at the next signal, or after so many seconds."""
        with suppress(Empty):
            self._came.get(timeout=seconds)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.first = self.first or number
        self.count += 1
        self._came.put(number)
        if self._interrupting:
            raise Interrupted
