"""From loading to the end: what a server may still accept, and how many requests it holds."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where a server is in its life."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    """Running requests end; new ones are refused."""


class Lifecycle:
    """The phase, and the number of requests that are being answered.

    The number is written by the event loop's thread alone; other threads may read it.
    """

    def __init__(self, phase: Phase = Phase.READY) -> None:
        self.phase = phase
        self.running = 0
