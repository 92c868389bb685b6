"""Progress as plain lines: of a terminal that cannot draw, a notebook, a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

LINE_EVERY_S = 30.0
"""Seconds between progress lines where stderr is not a terminal (Kaggle, CI)."""


@dataclass
class Progress:
    """Progress as plain lines; the base of the bar."""

    description: str
    total: float | None
    say: Callable[[str], None]
    """Prints a line."""
    _last: float = field(default_factory=time.monotonic)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def update(self, done: float, status: str = "") -> None:
        """`done` of `total` is finished; `status` is a short text such as the loss."""
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_S:
            self._last = now
            share = f" {100 * done / self.total:.0f} %" if self.total else f" {done:.0f}"
            self.say(f"{self.description}{share}  {status}".rstrip())
