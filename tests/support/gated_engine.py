"""A toy engine that a test lets run, step by step."""

from __future__ import annotations

import threading
import time

from toy_engine import ToyEngine

from ptbr_slm.tokenizer import Tokenizer


class GatedEngine(ToyEngine):
    """Each run, of a prompt's chunk or of one token of a batch, waits for a permit."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.fault: Exception | None = None
        self.fault_at = 0
        """The run, counted from 1, from which on `fault` is raised."""
        self.pace_s = 0.0
        """How long each run takes at least, s."""
        self._permits = 0
        self._open = False
        self._changed = threading.Condition()
        self.fail = self._gate

    def allow(self, count: int) -> None:
        """Permits for so many more runs."""
        with self._changed:
            self._permits += count
            self._changed.notify_all()

    def open(self) -> None:
        """Permits without end."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Until so many runs have begun, the last of which may wait for its permit."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.runs) >= count, timeout=30)

    def _gate(self, what: str, slots: list[int]) -> None:
        with self._changed:
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._open or self._permits > 0, timeout=60)
            self._permits -= not self._open
        time.sleep(self.pace_s)
        if self.fault is not None and len(self.runs) >= self.fault_at:
            raise self.fault
