"""Waiting for SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any


def in_notebook() -> bool:
    """Whether a person can still type after a call returns: a notebook or an interactive shell."""
    return hasattr(sys, "ps1")


class Signals:
    """SIGTERM and Ctrl-C end `wait` instead of the process; the former handlers return at the end.

    Outside the main thread Python allows no handlers: then only `wait`'s caller can end it.
    """

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread() and not in_notebook():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, lambda *_: self._ended.set())
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def wait(self) -> None:
        """Return once a signal came."""
        while not self._ended.wait(0.5):  # on Windows an endless wait would not see Ctrl-C
            pass
