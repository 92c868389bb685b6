"""All that watches a session of a run and is no part of it: its history, the loggers, the listener."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ptbr_slm.train.config_file import to_values
from ptbr_slm.train.events import Listener
from ptbr_slm.train.reporting.history import History
from ptbr_slm.train.reporting.loggers import opened

if TYPE_CHECKING:
    from ptbr_slm.train.loop import Trainer


class Watched:
    """A listener that also keeps in sessions.jsonl what metrics.jsonl does not hold."""

    def __init__(self, listener: Listener, history: History) -> None:
        self._listener, self._history = listener, history

    def event(self, record: Mapping[str, Any]) -> None:
        """Hand on, and note."""
        self._history.note(record)
        self._listener.event(record)

    def progress(self, done: float, status: str) -> None:
        """Hand on."""
        self._listener.progress(done, status)


@contextmanager
def watched(trainer: Trainer) -> Iterator[History | None]:
    """While the block runs, the trainer's listener has loggers and history beside it.

    None, and nothing is written, on ranks that are not the main one and for a run that is over already.
    """
    if not trainer.ranks.main or trainer.progress >= 1.0:
        yield None
        return
    before, config = trainer.listener, trainer.config
    facts = {
        "device": str(trainer.plan.device),
        "ranks": trainer.ranks.world,
        "precision": trainer.plan.precision.name,
        "batch_size": trainer.rows,
    }
    with ExitStack() as held:
        history = held.enter_context(History(config.output, trainer.state.step, facts))
        seen = Watched(before, history)
        loggers = opened(config.logger, seen, config.output, to_values(config), trainer.state.step)
        trainer.listener = held.enter_context(loggers)
        try:
            yield history
        finally:
            trainer.listener = before
