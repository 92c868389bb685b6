"""Listeners for runs under test."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any

from ptbr_slm.events import Event
from ptbr_slm.train.events import Step


@dataclass
class Recorder:
    """Keeps all events, as JSON-ready records."""

    events: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)

    def event(self, event: Event) -> None:
        self.events.append(event.record())

    def progress(self, done: float, status: str) -> None:
        assert 0 <= done <= 1
        self.statuses.append(status)

    def named(self, event: str) -> list[dict[str, Any]]:
        """The records of this kind."""
        return [record for record in self.events if record["event"] == event]


@dataclass
class StopAfter(Recorder):
    """Sends this process a signal at the end of a step, as a notebook or a user would."""

    step: int = 1
    number: int = signal.SIGTERM

    def event(self, event: Event) -> None:
        super().event(event)
        if isinstance(event, Step) and event.step == self.step:
            signal.raise_signal(self.number)
