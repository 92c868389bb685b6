"""What a run tells while it goes on, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ptbr_slm.errors import Exit


class Listener(Protocol):
    """Hears a run. Whatever it does with it, the run is the same."""

    def event(self, record: Mapping[str, Any]) -> None:
        """One JSON-ready record: `event` names it, Portuguese text is under `message` where there is any."""

    def progress(self, done: float, status: str) -> None:
        """The share of the run that is done, 0 to 1, and a short Portuguese status."""


class Silent:
    """A listener that ignores everything."""

    def event(self, record: Mapping[str, Any]) -> None:
        """Ignore."""

    def progress(self, done: float, status: str) -> None:
        """Ignore."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """How a run ended."""

    status: Literal["done", "stopped"]
    reason: str
    """`complete`, `sigterm`, `sighup`, `interrupt` or `max_time`."""
    exit_code: Exit
    run: Path
    model: Path
    """The model folder to use now: final/, or the checkpoint of a stopped run."""
    step: int
    tokens: int
    """Target tokens trained on over all sessions."""
    loss: float | None
    """Of the last step, nats a token; None where this session made none."""
    bits_per_byte: float | None
    """On the held-out part, of the newest evaluation."""
    seconds: float
    """Of training over all sessions, evaluation included."""
    tokens_per_second: float
    """Of this session's recent steps, evaluation and saving excluded."""
    skipped_steps: int
    """Steps whose fp16 gradient overflowed."""
