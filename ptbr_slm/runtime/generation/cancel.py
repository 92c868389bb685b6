"""`Cancel`: how another thread ends a generation."""

from __future__ import annotations

from threading import Event


class Cancel:
    """Handed to `Model.stream(..., cancel=...)`; one may serve many calls.

    After `cancel()` the texts end within one token, with finish_reason `cancelled` and what was written.
    """

    def __init__(self) -> None:
        self._event = Event()

    def cancel(self) -> None:
        """End the texts. From any thread, any number of times."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._event.is_set()
