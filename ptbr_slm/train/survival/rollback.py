"""Back to the last good checkpoint after a loss spike, past the data that brought it.

The checkpoint is written anew with what was learned (the windows left out, the count of rollbacks), before
metrics.jsonl forgets the abandoned steps: killed at any instant, the run goes back likewise or has done so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import discard
from ptbr_slm.train.events import Listener
from ptbr_slm.train.reporting.metrics import MetricsLog
from ptbr_slm.train.saving.checkpoint import TrainState, list_checkpoints, read_state
from ptbr_slm.train.saving.ownership import is_our_checkpoint
from ptbr_slm.train.saving.resume import set_aside
from ptbr_slm.train.survival.guards import Observed, diverged, last_good

if TYPE_CHECKING:
    from ptbr_slm.train.loop import Trainer


def go_back(trainer: Trainer, metrics: MetricsLog, seen: Observed) -> None:
    """Make the trainer what it was at the last good checkpoint, with the spike's windows left out.

    Where no checkpoint was written before the spike, the run goes on and says so. Raises E_TRAINING_DIVERGED
    when `guard.max_rollbacks` are used up.
    """
    state, guards, folder = trainer.state, trainer.guards, trainer.config.output / "checkpoints"
    since = guards.state.high_step
    found = trainer.ranks.from_main(lambda: _newest_good(folder, since, trainer.listener))
    if found is None:
        guards.accept_level()
        message = (
            f"a perda saltou no passo {since} e não há checkpoint anterior a isso: o treino segue daqui."
        )
        trainer.listener.event({"event": "warning", "code": "loss_spike", "message": message})
        return
    checkpoint, old = found
    if len(state.rollbacks) >= guards.settings.max_rollbacks:
        why = f"a perda saltou no passo {since}, já depois de {len(state.rollbacks)} volta(s) a um checkpoint"
        raise diverged(why, seen, guards.state, guards.run)
    start = max(old.cursor, guards.state.high_cursor)
    if any(record["step"] == old.step for record in state.rollbacks):
        start = old.cursor  # once was not enough: leave out all that was read since this checkpoint
    record = _record(seen, old.step, since, guards.state.mean, [start, state.cursor])
    skipped, rollbacks = [*state.skipped_windows, record["skipped_windows"]], [*state.rollbacks, record]
    trainer.load(checkpoint, old)
    state.skipped_windows, state.rollbacks = skipped, rollbacks
    trainer.ranks.from_main(lambda: _remove_later(folder, old.step))
    trainer.save(replace=True)
    metrics.rewind(old.step)
    metrics.write(record)
    trainer.listener.event(record)


def tell_again(trainer: Trainer, metrics: MetricsLog) -> None:
    """Write the rollbacks that a kill kept from metrics.jsonl."""
    for record in trainer.state.rollbacks[metrics.count("rollback") :]:
        metrics.write(record)


def _newest_good(folder: Path, since: int, listener: Listener) -> tuple[Path, TrainState] | None:
    """The newest checkpoint of before the spike that is intact. A corrupt one is named and skipped."""
    paths = {int(path.name.removeprefix("step-")): path for path in list_checkpoints(folder)}
    while (step := last_good(list(paths), since)) is not None:
        path = paths.pop(step)
        try:
            return path, read_state(path)
        except SlmError as error:
            if error.code != "E_CHECKPOINT_CORRUPT":
                raise
            message = f"{error.message} Pulado: {path.name}."
            listener.event({"event": "warning", "code": error.code, "where": str(path), "message": message})
    return None


def _remove_later(folder: Path, step: int) -> None:
    """Remove the checkpoints of the abandoned steps, newest first; what is not provably ours is renamed.

    A kill in between resumes from one of them, meets the spike again and comes back here.
    """
    for path in list_checkpoints(folder):
        if int(path.name.removeprefix("step-")) > step:
            if is_our_checkpoint(path):
                discard(path)
            else:
                set_aside(path, "replaced")


def _record(seen: Observed, step: int, since: int, mean: float, windows: list[int]) -> dict[str, Any]:
    message = (
        f"A perda saltou no passo {since} (está em {seen.loss:.3f}; a média era {mean:.3f}): de volta ao "
        f"checkpoint do passo {step}, sem as janelas {windows[0]} a {windows[1] - 1}."
    )
    return {
        "event": "rollback",
        "step": step,
        "from_step": seen.step,
        "high_since": since,
        "loss": seen.loss,
        "mean_loss": mean,
        "grad_norm": seen.grad_norm,
        "learning_rate": seen.learning_rate,
        "skipped_windows": windows,
        "message": message,
    }
